"""The service API: what it says is so, in the shape that its document promises, and only for those who may ask."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa

from backend.database import Annotation, Item, Pick, reading
from backend.web.app import create_app
from tests.web.conftest import Web, serving
from tests.web.played import BATCH, VERSIONS, Played, play

API = "/api/v1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def played(database: Path, root: Path) -> Played:
    return play(root)


@pytest.fixture(scope="module")
def api(database: Path, root: Path, played: Played) -> Iterator[Web]:
    """The web process over a project that was played, on SQLite and on Postgres."""
    with serving(database, NEXTBATCH_DATA_ROOT=str(root), LABEL_STUDIO_URL="https://studio.example") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(sqlite_home: Path) -> Iterator[Web]:
    with serving(sqlite_home, NEXTBATCH_USERNAME="ann", NEXTBATCH_PASSWORD="secret") as running:
        yield running


def get(web: Web, path: str, **query: Any) -> Any:
    answer = web.client.get(f"{API}{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def everything(web: Web, path: str, **query: Any) -> list[Any]:
    """All rows of a list, page by page."""
    rows, start = [], None
    while True:
        page = get(web, path, **query, **({} if start is None else {"from": start}))
        rows += page["items"]
        start = page["next"]
        if start is None:
            return rows


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def assert_described(document: dict[str, Any], operation: dict[str, Any], answer: Any) -> None:
    described = operation["responses"][str(answer.status_code)]["content"]
    kind = answer.headers["Content-Type"].partition(";")[0]
    schema = {**described[kind]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(answer.json())


def test_the_parts_of_a_project_add_up_to_what_a_plain_count_finds(api: Web, played: Played) -> None:
    with reading() as session:
        found = session.scalars(sa.select(Item).where(Item.project_id == played.project_id)).all()
        said = set(session.scalars(sa.select(Annotation.item_id).where(Annotation.project_id == played.project_id)))
    labelled = [item for item in found if item.id in said]
    rest = [item for item in found if item.id not in said]

    counts = get(api, f"/projects/{played.name}")["counts"]

    assert counts["labelled"] == sum(not item.is_holdout for item in labelled)
    assert counts["holdout"] == sum(item.is_holdout for item in labelled)
    assert counts["in_batch"] == BATCH - 4
    assert counts["failed"] == sum(item.state == "failed" for item in rest)
    assert counts["new"] == sum(item.state == "new" for item in rest)
    assert sum(counts.values()) == played.items


def test_pages_of_items_join_to_all_of_them_once(api: Web, played: Played) -> None:
    items = everything(api, f"/projects/{played.name}/items", limit=137)
    failed = everything(api, f"/projects/{played.name}/items", limit=7, state="failed")

    ids = [item["id"] for item in items]
    assert ids == sorted(set(ids))
    assert len(ids) == played.items
    assert failed == [item for item in items if item["state"] == "failed"]
    assert len(failed) == played.failed


def test_a_batch_comes_in_rank_order_with_what_people_see(api: Web, played: Played) -> None:
    first = get(api, f"/projects/{played.name}/batches/{VERSIONS}", limit=5)
    rest = get(api, f"/projects/{played.name}/batches/{VERSIONS}", **{"from": first["picks"]["next"]})

    picks = first["picks"]["items"] + rest["picks"]["items"]
    with reading() as session:
        reasons = session.scalars(
            sa.select(Pick.reason).where(Pick.item_id.in_(played.picked)).order_by(Pick.rank)
        ).all()
    assert [pick["item_id"] for pick in picks] == played.picked
    assert [pick["rank"] for pick in picks] == list(range(BATCH))
    assert {pick["reason"] for pick in picks} <= set(reasons)
    assert [bool(pick["label"]) for pick in picks] == [True] * 4 + [False] * (BATCH - 4)
    assert all(a >= b for pick in picks for a, b in itertools.pairwise(pick["probabilities"].values()))
    assert picks[4]["task_url"].startswith("https://studio.example/projects/")
    assert first["batch"]["labelled"] == 4


def test_the_newest_version_round_and_batch_come_first(api: Web, played: Played) -> None:
    for kind in ("models", "rounds", "batches"):
        numbers = [one["number"] for one in everything(api, f"/projects/{played.name}/{kind}", limit=4)]

        assert numbers[-VERSIONS:] == list(range(VERSIONS, 0, -1))


def test_stopping_advice_reads_the_holdout_alone(api: Web, played: Played) -> None:
    curve = get(api, f"/projects/{played.name}/curve")

    assert [point["labels"] for point in curve["points"]] == [50 * number for number in range(1, VERSIONS + 1)]
    assert [point["measure"]["source"] for point in curve["points"]].count("cross-validation") == 1
    assert curve["advice"][0]["says_stop"] is False
    assert "50 more labels promise" in curve["advice"][0]["says"]


def test_failures_that_differ_in_a_number_are_counted_together(api: Web, played: Played) -> None:
    found = get(api, f"/projects/{played.name}/health")["failures"]

    assert sorted(one["count"] for one in found) == [10, 20]


def test_asking_for_a_round_twice_gives_the_one_that_waits(api: Web, played: Played) -> None:
    path = f"{API}/projects/{played.name}/rounds"

    first, second = api.client.post(path, json={}), api.client.post(path, json={})

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["number"] == second.json()["number"] == VERSIONS + 1
    assert first.json()["state"] == "waiting"
    assert get(api, f"/projects/{played.name}/rounds/{VERSIONS + 1}")["trigger"] == "api"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/json"}, b"[]", 400),
        ({"Content-Type": "application/json"}, b"{", 400),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, b"{}", 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"}, b"{}", 403),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, b"{}", 403),
        ({"Content-Type": "application/json", "Origin": "null"}, b"{}", 403),
    ],
)
def test_what_another_sites_page_can_send_is_refused(
    api: Web, played: Played, headers: dict[str, str], body: bytes, status: int
) -> None:
    before = len(everything(api, f"/projects/{played.name}/rounds"))

    answer = api.client.post(f"{API}/projects/{played.name}/rounds", content=body, headers=headers)

    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(everything(api, f"/projects/{played.name}/rounds")) == before


def test_whoever_polls_is_told_in_a_few_bytes_that_nothing_changed(api: Web, played: Played) -> None:
    path = f"{API}/projects/{played.name}/rounds/1"

    first = api.client.get(path)
    same = api.client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    other = api.client.get(f"{API}/projects/{played.name}/rounds/2", headers={"If-None-Match": first.headers["ETag"]})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200


def test_every_answer_has_the_shape_that_the_document_promises(api: Web, played: Played) -> None:
    document = get(api, "/openapi.json")
    checked = 0

    for path, method, operation in operations(document):
        name = "flowers" if "/queries" in path or "/labels" in path else played.name  # flowers is the document's own
        body = operation["requestBody"]["content"]["application/json"]["example"] if method == "post" else None
        good = api.client.request(method, path.replace("{name}", name).replace("{number}", "1"), json=body)
        missing = api.client.request(method, path.replace("{name}", "nowhere").replace("{number}", "999"), json=body)
        for answer in (good, missing):
            assert_described(document, operation, answer)
            checked += 1
        assert good.status_code < 300, good.text
        assert "{name}" not in path or missing.status_code == 404

    assert checked == 2 * len(list(operations(document))) >= 26


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=1e1", "from=-1", "from=2147483648", "state=old"]
)
def test_parameters_outside_the_document_are_refused_with_the_mend(api: Web, played: Played, query: str) -> None:
    answer = api.client.get(f"{API}/projects/{played.name}/items?{query}")

    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "must be" in answer.json()["detail"]


@pytest.mark.parametrize("number", ["2147483647", "2147483648", "99999999999999999999", "-1", "x"])
def test_a_number_that_no_round_has_is_no_failure(api: Web, played: Played, number: str) -> None:
    answer = api.client.get(f"{API}/projects/{played.name}/rounds/{number}")

    assert answer.status_code in (400, 404)
    assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize("name", ["a%00b", "%00", "..%2f..", "%ff%fe", "x" * 4_000, "%F0%9F%92%A9", "' OR 1=1 --"])
def test_a_name_that_no_project_has_is_not_found(api: Web, name: str) -> None:
    answers = [api.client.get(f"{API}/projects/{name}/items"), api.client.get(f"/projects/{name}/batch")]

    assert [answer.status_code for answer in answers] == [404, 404]


def test_the_document_has_every_route_and_no_other(sqlite_home: Path, guarded: Web) -> None:
    rules = [rule for rule in create_app().url_map.iter_rules() if rule.rule.startswith(API)]
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    document = guarded.client.get(f"{API}/openapi.json", auth=("ann", "secret")).json()

    assert {(path, method) for path, method, _ in operations(document)} == served
    assert document["openapi"] == "3.1.0"


def test_no_route_answers_without_credentials(guarded: Web) -> None:
    document = guarded.client.get(f"{API}/openapi.json", auth=("ann", "secret")).json()

    for path, method, operation in operations(document):
        for credentials in (None, ("ann", "wrong")):
            answer = guarded.client.request(
                method, path.replace("{name}", "x").replace("{number}", "1"), json={}, auth=credentials
            )

            assert answer.status_code == 401, path
            assert_described(document, operation, answer)

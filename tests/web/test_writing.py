"""The writing API: done once however often it is asked, refused with the mend, and only for those whose scope it is."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from typer.testing import CliRunner
from werkzeug.test import TestResponse

from backend import tokens
from backend.cli import app as cli
from backend.database import (
    Annotation,
    Item,
    KeptAnswer,
    Project,
    Round,
    Token,
    Vote,
    now,
    project_named,
    reading,
    transaction,
)
from backend.rounds.labelling import NewProject
from backend.settings import ProjectConfig
from backend.web import kept
from backend.web.app import create_app
from backend.web.routes import ROUTES
from tests.web.champion import crown
from tests.web.conftest import make_project

API = "/api/v1"
URIS = [f"https://example.org/{number}.jpg" for number in range(6)]


@pytest.fixture(scope="module")
def client(database: Path) -> FlaskClient:
    """The application in this process, on SQLite and on Postgres."""
    return create_app().test_client()


@pytest.fixture
def name(client: FlaskClient, request: pytest.FixtureRequest) -> str:
    """A project of the API with six items."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    assert post(client, "/projects", {"name": name, "labels": ["cat", "dog"]}).status_code == 201
    assert post(client, f"/projects/{name}/items", {"uris": URIS}).json["added"] == 6
    return name


def post(client: FlaskClient, path: str, body: Any, key: str | None = None, **headers: str) -> TestResponse:
    if key is not None:
        headers["Idempotency-Key"] = key
    return client.post(f"{API}{path}", json=body, headers=headers)


def rounds(name: str) -> int:
    with reading() as session:
        query = sa.select(sa.func.count()).select_from(Round).join(Project, Project.id == Round.project_id)
        return session.scalar(query.where(Project.name == name)) or 0


def test_a_project_takes_every_section_of_a_yaml_but_label_studios(client: FlaskClient) -> None:
    config = {
        "stopping": {"target": 0.95}, "head": {"kind": "best"}, "challenger": {"decide": "rule"},
        "analysis": {"sensitivity_items": 0}, "fine_tune": {"epochs": 2}, "batch": {"size": 7},
    }  # fmt: skip

    made = post(client, "/projects", {"name": "whole", **config})
    other = post(client, "/projects", {"name": "whole", **config, "stopping": {"target": 0.9}})
    wrong = [
        post(client, "/projects", {"name": "wrong", "stopping": section})
        for section in ({"target": 1.5}, {"goal": 0.9}, 0.9)
    ]

    with reading() as session:
        stored = project_named(session, "whole").settings.model_dump(mode="json")
    assert set(ProjectConfig.model_fields) - set(NewProject.model_fields) == {"label_source", "label_studio", "publish"}
    assert (made.status_code, other.status_code) == (201, 409)
    assert {name: {key: stored[name][key] for key in section} for name, section in config.items()} == config
    assert [one.status_code for one in wrong] == [400] * 3
    assert "stopping.target" in wrong[0].json["detail"]


def test_a_project_is_filled_asked_and_labelled(client: FlaskClient, name: str) -> None:
    lines = b"".join(json.dumps({"uri": uri, "shelf": 2}).encode() + b"\n" for uri in [*URIS[:2], "http://10.1.2.3/x"])

    pushed = client.post(f"{API}/projects/{name}/items", data=lines, content_type="application/x-ndjson")
    asked = post(client, f"/projects/{name}/queries", {"budget": 3, "strategy": "margin", "parameters": {}})
    query = client.get(f"{API}/projects/{name}/queries/{asked.json['number']}")
    picks = client.get(f"{API}/projects/{name}/queries/{asked.json['number']}/picks")
    labels = [{"uri": URIS[0], "label": "cat", "annotator": "ann"}, {"uri": URIS[1], "label": None, "id": 5}]
    stored = post(client, f"/projects/{name}/labels", {"labels": labels})

    assert (pushed.json["added"], pushed.json["known"], pushed.json["refused"]) == (0, 2, 1)
    assert "allow_hosts" in pushed.json["reasons"][0]
    assert asked.status_code == 202
    assert query.json == asked.json
    assert (query.json["state"], query.json["budget"], query.json["strategy"]) == ("waiting", 3, "margin")
    assert picks.json == {"items": [], "next": None}
    assert stored.json == {"new": 2, "changed": 0, "unchanged": 0}
    same = client.get(
        f"{API}/projects/{name}/queries/{asked.json['number']}", headers={"If-None-Match": query.headers["ETag"]}
    )
    assert same.status_code == 304


def test_a_request_with_a_key_is_done_once(client: FlaskClient, name: str) -> None:
    path = f"/projects/{name}/queries"

    first, again = (post(client, path, {"budget": 3}, "k-1") for _ in range(2))
    other = post(client, path, {"budget": 4}, "k-1")
    elsewhere = post(client, f"/projects/{name}/rounds", {}, "k-1")
    fresh = post(client, path, {"budget": 3}, "k-2")

    assert (first.status_code, again.status_code, first.json) == (202, 202, again.json)
    assert (kept.REPLAYED in first.headers, again.headers[kept.REPLAYED]) == (False, "true")
    assert (other.status_code, elsewhere.status_code) == (409, 409)
    assert "new key" in other.json["detail"]
    assert fresh.json["number"] == first.json["number"] + 1
    assert rounds(name) == 2


def test_of_many_who_ask_at_once_with_one_key_one_is_served_and_all_are_told(client: FlaskClient, name: str) -> None:
    gate, answers = threading.Barrier(6), []

    def ask() -> None:
        mine = client.application.test_client()
        gate.wait()
        answers.append(post(mine, f"/projects/{name}/queries", {"budget": 1}, "same"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status_code for answer in answers} <= {202, 503}  # SQLite may be busy, and then says so
    assert len({answer.json["number"] for answer in answers if answer.status_code == 202}) == 1
    assert rounds(name) == 1


def test_a_refused_request_keeps_no_answer_and_an_old_one_is_forgotten(client: FlaskClient, name: str) -> None:
    path, body = f"/projects/{name}/labels", {"labels": [{"uri": "https://example.org/late.jpg", "label": "cat"}]}

    refused = post(client, path, body, "late")
    post(client, f"/projects/{name}/items", {"uris": ["https://example.org/late.jpg"]})
    accepted = post(client, path, body, "late")
    with transaction() as session:
        session.execute(sa.update(KeptAnswer).values(created_at=now() - kept.KEPT_FOR))
    anew = post(client, path, body, "late")

    assert (refused.status_code, accepted.status_code) == (400, 200)
    assert "labels.0" in refused.json["detail"]
    assert (accepted.json["new"], anew.json["new"], anew.json["unchanged"]) == (1, 0, 1)
    with reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(KeptAnswer)) == 1


def test_pushed_lines_with_a_key_are_told_again(client: FlaskClient, name: str) -> None:
    def push(line: bytes) -> TestResponse:
        headers = {"Idempotency-Key": "lines"}
        return client.post(
            f"{API}/projects/{name}/items", data=line, content_type="application/x-ndjson", headers=headers
        )

    first, again, other = (push(b'{"uri": "https://example.org/%s"}\n' % uri) for uri in (b"z", b"z", b"y"))

    assert (first.json["added"], again.json, again.headers[kept.REPLAYED]) == (1, first.json, "true")
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/queries", {}, 400, "budget"),
        ("/queries", {"budget": 0}, 400, "greater than or equal to 1"),
        ("/queries", {"budget": 10**9}, 400, "less than or equal to"),
        ("/queries", {"budget": 1, "strategy": "margn"}, 400, "margin"),
        ("/queries", {"budget": 1, "stategy": "margin"}, 400, "stategy"),
        ("/labels", {"labels": [{"uri": URIS[0], "label": "cow"}]}, 400, "cat, dog"),
        ("/labels", {"labels": [{"label": "cat"}]}, 400, "labels.0"),
        ("/labels", {"labels": [{"uri": "a\0", "label": "cat"}]}, 400, "NUL"),
        ("/labels", {"labels": [{"uri": "\ud800", "label": "cat"}]}, 400, "surrogate"),
        ("/labels", {"labels": [{"item_id": 2**31 - 1, "label": "cat"}]}, 400, "labels.0"),
        ("/labels", {"labels": [{"uri": URIS[0], "label": "cat", "seconds": float("nan")}]}, 400, "seconds"),
        ("/items", {"manifest": "http://127.0.0.1:9/m.csv"}, 400, "allow_hosts"),
        ("/items", {"manifest": "/etc/passwd"}, 400, "must end in"),
        ("/items", {"uris": "x"}, 400, "uris"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(
    client: FlaskClient, name: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = post(client, f"/projects/{name}{path}", body)

    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert words in answer.json["detail"]


def test_a_project_is_made_once_and_not_changed_by_another(client: FlaskClient, name: str) -> None:
    again = post(client, "/projects", {"name": name, "labels": ["cat", "dog"]})
    other = post(client, "/projects", {"name": name, "labels": ["cat", "cow"]})
    bad = post(client, "/projects", {"name": "Not A Name"})

    assert (again.status_code, other.status_code, bad.status_code) == (201, 409, 400)
    with reading() as session:
        assert (
            session.scalar(sa.select(sa.func.count()).select_from(Item).join(Project).where(Project.name == name)) == 6
        )


def test_labels_of_a_label_studio_project_are_not_taken(client: FlaskClient, name: str) -> None:
    with transaction() as session:
        project = session.scalars(sa.select(Project).where(Project.name == name)).one()
        project.config = {**project.config, "label_source": "label-studio"}

    answer = post(client, f"/projects/{name}/labels", {"labels": [{"uri": URIS[0], "label": "cat"}]})

    assert answer.status_code == 409
    with reading() as session:
        assert not session.scalar(sa.select(sa.exists().where(Annotation.project_id == project.id)))


def test_feedback_is_kept_once_a_voter_and_a_true_label_is_compared_with_what_the_version_says(
    client: FlaskClient,
) -> None:
    project = make_project()
    made = crown(project, items=4)
    right = made.expected(1)[0]
    wrong = next(label for label in made.head.classes if label != right)
    first = [
        {"uri": made.uris[0], "version": "v1", "vote": "against", "voter": "u1"},
        {"uri": made.uris[1], "version": "champion", "label": wrong, "voter": "u1"},
        {"uri": made.uris[1], "version": "v1", "label": right},
    ]
    changed = [{"uri": made.uris[0], "version": "v1", "vote": "for", "voter": "u1"}]

    answers = [post(client, "/feedback", {"project": project.name, "feedback": body}) for body in (first, changed)]
    refused = [
        post(client, "/feedback", {"project": project.name, "feedback": [{"uri": made.uris[0], **body}]})
        for body in ({"version": "v9", "vote": "for"}, {"version": "v1"}, {"version": "v1", "vote": "maybe"})
    ]

    assert answers[0].json == {"new": 3, "changed": 0, "against": 2}
    assert answers[1].json == {"new": 0, "changed": 1, "against": 0}
    assert [answer.status_code for answer in refused] == [400, 400, 400]
    assert "v1" in refused[0].json["detail"]
    assert "vote or a label" in refused[1].json["detail"]
    with reading() as session:
        kept_ = session.execute(sa.select(Vote.is_against).where(Vote.project_id == project.id).order_by(Vote.id)).all()
    assert [one for (one,) in kept_] == [False, True, False]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pool": {"source": "api", "allow_hosts": ["10.0.0.1"]}}, "tokens create"),
        ({"pool": {"source": "s3", "path": "s3://b/p", "allow_buckets": ["b"]}}, "tokens create"),
        ({"pool": {"source": "api", "s3_endpoint": "http://10.0.0.1"}}, "tokens create"),
        ({"encoder": {"weights": "/etc/passwd"}}, "weights"),
    ],
)
def test_nobody_in_particular_opens_private_places(client: FlaskClient, config: dict[str, Any], words: str) -> None:
    answer = post(client, "/projects", {"name": "sly", **config})

    assert answer.status_code == 403
    assert words in answer.json["detail"]
    with reading() as session:
        assert not session.scalar(sa.select(sa.exists().where(Project.name == "sly")))


@pytest.fixture
def secrets(client: FlaskClient) -> Iterator[dict[str, str]]:
    """A token of each scope; gone afterwards, and the API is open again."""
    with transaction() as session:
        made = {scope: tokens.create(session, scope, scope) for scope in tokens.SCOPES}
    yield made
    with transaction() as session:
        session.execute(sa.delete(Token))


def test_every_route_is_closed_below_its_scope(client: FlaskClient, name: str, secrets: dict[str, str]) -> None:
    for route in ROUTES:
        path = API + route.path.replace("{name}", name).replace("{number}", "1")
        for scope in (None, "wrong", *tokens.SCOPES):
            secret = secrets.get(scope or "", "nb_wrong")
            headers = {} if scope is None else {"Authorization": f"Bearer {secret}"}
            answer = client.open(path, method=route.method, headers=headers, data=b"[")  # never done: no object

            if scope not in tokens.SCOPES:
                assert answer.status_code == 401, (path, scope)
            elif not tokens.allows(scope, route.scope):
                assert answer.status_code == 403, (path, scope)
                assert f"--scope {route.scope}" in answer.json["detail"]
            else:
                assert answer.status_code in ((400, 415) if route.writes else (200, 404)), (path, scope)
            assert answer.status_code < 400 or answer.mimetype == "application/problem+json"


def test_a_token_ends_when_it_is_revoked_or_its_days_are_over(client: FlaskClient, secrets: dict[str, str]) -> None:
    def status(secret: str) -> int:
        return client.get(f"{API}/projects", headers={"Authorization": f"Bearer {secret}"}).status_code

    before = [status(secret) for secret in secrets.values()]
    with transaction() as session:
        tokens.revoke(session, "read")
        session.execute(sa.update(Token).where(Token.name == "label").values(expires_at=now()))

    assert before == [200, 200, 200]
    assert [status(secrets[scope]) for scope in tokens.SCOPES] == [401, 401, 200]
    with reading() as session:
        assert not set(secrets.values()) & set(session.scalars(sa.select(Token.digest)))


def test_tokens_by_hand(client: FlaskClient, secrets: dict[str, str]) -> None:
    run = CliRunner().invoke

    made = run(cli, ["tokens", "create", "robot", "--scope", "label", "--days", "3"])
    twice = run(cli, ["tokens", "create", "robot"])
    odd = run(cli, ["tokens", "create", "other", "--scope", "god"])
    listed = json.loads(run(cli, ["tokens", "list", "--json"]).stdout)
    revoked = run(cli, ["tokens", "revoke", "robot"])

    secret = made.stdout.strip().splitlines()[-1]
    assert secret.startswith("nb_")
    assert {row["name"]: (row["scope"], row["state"]) for row in listed}["robot"] == ("label", "valid")
    assert (made.exit_code, revoked.exit_code) == (0, 0)
    assert "already" in str(twice.exception)
    assert odd.exit_code == 2
    assert client.get(f"{API}/projects", headers={"Authorization": f"Bearer {secret}"}).status_code == 401


def test_an_admin_opens_a_bucket(client: FlaskClient, secrets: dict[str, str]) -> None:
    body = {"name": "bucket", "pool": {"source": "api", "allow_buckets": ["mine"]}}

    answer = post(client, "/projects", body, Authorization=f"Bearer {secrets['admin']}")

    assert answer.status_code == 201

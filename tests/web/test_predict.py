"""/predict: exactly one entry a task, in order, in time, whatever the tasks hold and whatever is broken behind it."""

import json
import threading
import time
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.database import Item, Project, reading, transaction
from backend.hooks import Hooks
from backend.learning.registry import head_path
from backend.pool.catalog import item_key
from backend.settings import settings
from tests.web.champion import DIMS, Champion, crown
from tests.web.conftest import IMAGE_CONFIG, Web, make_project

ODD_TASKS: list[Any] = [
    None,
    5,
    "task",
    [],
    {},
    {"id": 1},
    {"id": 1, "data": None},
    {"id": 1, "data": {}},
    {"id": 1, "data": {"image": None}},
    {"id": 1, "data": {"image": ["https://example.org/a.jpg"]}},
    {"id": 1, "data": {"image": ""}},
    {"id": 1, "data": {"image": "nul\0"}},
    {"id": 1, "data": {"image": "half a pair \ud800"}},
    {"id": 1, "data": {"image": "x" * 70_000}},
]


def ask(web: Web, project: Project, tasks: list[Any], config: str = IMAGE_CONFIG) -> list[dict[str, Any]]:
    body = {
        "tasks": tasks,
        "project": f"{project.studio_project_id}.1795224187",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }
    answer = web.client.post("/predict", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(tasks)
    return results


def tasks_of(champion: Champion) -> list[dict[str, Any]]:
    return [
        {"id": task_id, "data": {"image": uri}} for task_id, uri in zip(champion.task_ids, champion.uris, strict=True)
    ]


def assert_predicted(entry: dict[str, Any], champion: Champion, place: int) -> None:
    label, probability = champion.expected(place)
    assert entry["result"] == [
        {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
    ]
    assert entry["score"] == pytest.approx(probability, abs=2e-3)
    assert entry["model_version"] == "v1"


def items_of(project: Project) -> dict[str, Item]:
    with reading() as session:
        return {item.uri: item for item in session.scalars(sa.select(Item).where(Item.project_id == project.id))}


EMPTY = {"result": [], "score": 0.0, "model_version": "v1"}


def test_known_items_are_predicted_in_the_order_of_the_tasks(web: Web, project: Project) -> None:
    champion = crown(project)
    order = [3, 0, 7, 3, 5]

    entries = ask(web, project, [tasks_of(champion)[place] for place in order])

    for entry, place in zip(entries, order, strict=True):
        assert_predicted(entry, champion, place)


def test_an_item_is_known_by_task_id_by_address_and_by_key(web: Web, project: Project) -> None:
    champion = crown(project)
    by_id = {"id": champion.task_ids[0], "data": {"image": "https://example.org/moved.jpg"}}
    by_address = {"id": 77_777_777, "data": {"image": champion.uris[1]}}
    key = item_key(champion.uris[2])
    by_key = {"id": 77_777_778, "data": {"image": "https://example.org/signed.jpg", "nextbatch_key": key}}

    entries = ask(web, project, [by_id, by_address, by_key])

    for place, entry in enumerate(entries):
        assert_predicted(entry, champion, place)


def test_broken_tasks_never_cost_the_others(web: Web, project: Project) -> None:
    champion = crown(project)
    mixed = [task for odd in ODD_TASKS for task in (odd, tasks_of(champion)[4])]

    entries = ask(web, project, mixed)

    assert entries[::2] == [EMPTY] * len(ODD_TASKS)
    for entry in entries[1::2]:
        assert_predicted(entry, champion, 4)


def test_unknown_tasks_become_items_for_the_next_round_once(web: Web, project: Project) -> None:
    crown(project, items=0)
    tasks = [{"id": 500 + n, "data": {"image": f"https://example.org/new/{n}.jpg"}} for n in range(6)]

    first, second = ask(web, project, tasks), ask(web, project, tasks)

    assert first == second == [EMPTY] * 6
    items = items_of(project)
    assert sorted((item.task_id, item.state) for item in items.values()) == [(500 + n, "new") for n in range(6)]


def test_failed_items_stay_failed(web: Web, project: Project) -> None:
    champion = crown(project, items=1)
    with transaction() as session:
        session.execute(sa.update(Item).where(Item.project_id == project.id).values(state="failed", content_hash=None))

    entries = ask(web, project, tasks_of(champion))

    assert entries == [EMPTY]
    assert [item.state for item in items_of(project).values()] == ["failed"]


def test_before_the_first_model_every_task_has_an_empty_entry(web: Web, project: Project) -> None:
    entries = ask(web, project, [{"id": 1, "data": {"image": "https://example.org/1.jpg"}}] * 3)

    assert entries == [{"result": [], "score": 0.0, "model_version": "v0"}] * 3


def test_a_project_that_nextbatch_does_not_know_gets_empty_entries(web: Web, project: Project) -> None:
    stranger = Project(studio_project_id=888_888)

    entries = ask(web, stranger, [{"id": 1, "data": {"image": "https://example.org/1.jpg"}}] * 2)

    assert entries == [{"result": [], "score": 0.0, "model_version": "v0"}] * 2


def test_a_configuration_that_cannot_be_used_gives_empty_entries(web: Web, project: Project) -> None:
    champion = crown(project)

    entries = ask(web, project, tasks_of(champion), config="<View><TextArea name='a' toName='b'/></View>")

    assert entries == [EMPTY] * 8


def test_a_label_that_the_project_no_longer_has_is_not_predicted(web: Web, project: Project) -> None:
    champion = crown(project, classes=("cat", "horse"))

    entries = ask(web, project, tasks_of(champion))

    for place, entry in enumerate(entries):
        if champion.expected(place)[0] == "horse":
            assert entry == EMPTY
        else:
            assert_predicted(entry, champion, place)


def test_a_lost_head_gives_empty_entries(web: Web, project: Project) -> None:
    champion = crown(project)
    head_path(champion.head.digest).unlink()

    assert ask(web, project, tasks_of(champion)) == [EMPTY] * 8


def test_a_cut_off_vector_file_costs_only_what_is_lost(web: Web, project: Project) -> None:
    champion = crown(project)
    (segment,) = (settings().home / "vectors" / champion.encoder_digest).glob("*.vectors")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 2 * DIMS * 2)  # the last two rows

    entries = ask(web, project, tasks_of(champion))

    for place in range(6):
        assert_predicted(entries[place], champion, place)
    assert entries[6:] == [EMPTY] * 2


def test_ten_thousand_tasks_are_answered_in_one_call_within_the_deadline(web: Web, project: Project) -> None:
    champion = crown(project, items=200)
    known, unknown = (
        tasks_of(champion),
        [{"id": 10_000_000 + n, "data": {"image": f"https://example.org/many/{n}.jpg"}} for n in range(9_800)],
    )

    started = time.monotonic()
    entries = ask(web, project, known + unknown)
    seconds = time.monotonic() - started

    assert_predicted(entries[199], champion, 199)
    assert entries[200:] == [EMPTY] * 9_800
    assert seconds < settings().predict_deadline_s + 5  # reading and writing 5 MB of JSON on a busy machine


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"tasks": {}, "project": "1.2"}', b'{"tasks": [], "project": null}', b"[]"]
)
def test_a_request_that_is_none_is_refused_with_the_reason(web: Web, body: bytes) -> None:
    answer = web.client.post("/predict", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.text.startswith("The request cannot be answered: ")


def vector_of(uri: str) -> NDArray[np.float32]:
    """An embedding that depends on the address alone."""
    return np.random.default_rng(len(uri)).normal(size=DIMS).astype(np.float32)


def opened(project: Project, count: int) -> list[dict[str, Any]]:
    return [{"id": 900 + n, "data": {"image": f"https://example.org/{'o' * n}.jpg"}} for n in range(count)]


def test_at_most_four_unknown_tasks_are_encoded_at_once(database: object, project: Project) -> None:
    champion = crown(project)
    asked: list[list[str]] = []

    class Quick(Hooks):
        @staticmethod
        def encode_now(_project_id: int, _digest: str, uris: list[str]) -> dict[str, Any]:
            asked.append(uris)
            return {uri: vector_of(uri) for uri in uris}

    tasks = opened(project, 6)
    entries = Quick(str(project.studio_project_id), IMAGE_CONFIG).predict(tasks)

    assert asked == [[task["data"]["image"] for task in tasks[:4]]]
    for task, entry in zip(tasks[:4], entries[:4], strict=True):
        (probabilities,) = champion.head.predict(vector_of(task["data"]["image"])[None])
        assert entry["result"][0]["value"]["choices"] == [champion.head.classes[int(probabilities.argmax())]]
        assert entry["score"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    assert entries[4:] == [EMPTY] * 2
    assert {item.state for uri, item in items_of(project).items() if uri not in champion.uris} == {"new"}


def test_an_encoder_that_hangs_does_not_hold_the_answer(
    database: object, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = crown(project)
    monkeypatch.setattr(settings(), "predict_deadline_s", 0.7)
    released = threading.Event()

    class Hanging(Hooks):
        @staticmethod
        def encode_now(_project_id: int, _digest: str, _uris: list[str]) -> dict[str, Any]:
            released.wait(20)
            return {}

    started = time.monotonic()
    entries = Hanging(str(project.studio_project_id), IMAGE_CONFIG).predict([*opened(project, 2), *tasks_of(champion)])
    seconds = time.monotonic() - started
    released.set()

    assert seconds < 5  # what hangs hangs for 20
    assert entries[:2] == [EMPTY] * 2
    assert_predicted(entries[2], champion, 0)


def _raise(_project_id: int, _digest: str, _uris: list[str]) -> dict[str, Any]:
    raise ConnectionError("the encoder is away")


@pytest.mark.parametrize(
    "encode_now",
    [
        _raise,
        lambda project_id, digest, uris: {},
        lambda project_id, digest, uris: {uri: np.zeros(DIMS + 1, np.float32) for uri in uris},
        lambda project_id, digest, uris: {uri: np.full(DIMS, np.nan, np.float32) for uri in uris},
        lambda project_id, digest, uris: dict.fromkeys(uris, "vector"),
    ],
    ids=["raises", "nothing", "wrong size", "not finite", "no vector"],
)
def test_an_encoder_that_fails_gives_empty_entries(database: object, project: Project, encode_now: Any) -> None:
    champion = crown(project)
    failing = type("Failing", (Hooks,), {"encode_now": staticmethod(encode_now)})

    entries = failing(str(project.studio_project_id), IMAGE_CONFIG).predict([*opened(project, 2), *tasks_of(champion)])

    assert entries[:2] == [EMPTY] * 2
    assert_predicted(entries[2], champion, 0)


def test_the_next_champion_answers_at_once(web: Web, project: Project) -> None:
    first = crown(project, number=1)
    before = ask(web, project, tasks_of(first))

    crown(project, number=2)
    after = ask(web, project, tasks_of(first))

    assert {entry["model_version"] for entry in before} == {"v1"}
    assert {entry["model_version"] for entry in after} == {"v2"}
    assert [entry["score"] for entry in before] != [entry["score"] for entry in after]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
data = st.fixed_dictionaries({"image": st.text(max_size=8) | json_values}, optional={"nextbatch_key": json_values})
tasks = st.lists(json_values | st.fixed_dictionaries({"id": json_values, "data": data | json_values}), max_size=6)


@pytest.fixture(scope="module")
def crowned(database: object) -> tuple[Project, Champion]:
    project = make_project()
    return project, crown(project)


@given(tasks=tasks)
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_gets_one_entry_a_task(crowned: tuple[Project, Champion], tasks: list[Any]) -> None:
    project, champion = crowned
    good = tasks_of(champion)[0]

    entries = Hooks(str(project.studio_project_id), IMAGE_CONFIG).predict([*tasks, good])

    assert len(entries) == len(tasks) + 1
    assert all(set(entry) == {"result", "score", "model_version"} for entry in entries)
    assert_predicted(entries[-1], champion, 0)

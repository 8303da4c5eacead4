"""Every event becomes one row of ids; what is no event says why; nothing private is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import events
from backend.database import Event, Project, Round, now, transaction
from backend.errors import MalformedEvent, UnknownEvent
from tests.web import bodies
from tests.web.conftest import Web, make_project, rounds, stored, studio_project

COLUMNS = [column.name for column in Event.__table__.columns]
KINDS = sorted(bodies.every_kind({"id": 1}))


@pytest.mark.parametrize("case", KINDS)
def test_every_kind_is_stored_with_its_ids(web: Web, project: Project, case: str) -> None:
    body, task_ids, annotation_ids = bodies.every_kind(studio_project(project))[case]

    answer = web.client.post("/webhook", json=body)

    assert answer.status_code == 200, answer.text
    (event,) = stored(project)
    assert (event.action, event.task_ids, event.annotation_ids) == (body["action"], task_ids, annotation_ids)
    assert event.round_number is None


def test_start_training_asks_for_a_round_at_once(web: Web, project: Project) -> None:
    body = {"action": "START_TRAINING", "project": studio_project(project)}

    answers = [web.client.post("/webhook", json=body).json()["result"] for _ in range(3)]

    assert answers == [{"stored": True, "round": 1}] * 3
    assert [(round_.number, round_.trigger, round_.state) for round_ in rounds(project)] == [
        (1, "start_training", "waiting")
    ]
    assert len(stored(project)) == 3


def test_labels_wait_for_quiet(web: Web) -> None:
    project = make_project(trigger={"new_labels": 1, "quiet_s": 60, "rest_share": 0})
    body, *_ = bodies.every_kind(studio_project(project))["created"]

    web.client.post("/webhook", json=body)

    assert rounds(project) == []
    assert len(stored(project)) == 1


def test_a_batch_that_runs_out_asks_for_a_round_at_once(web: Web) -> None:
    project = make_project(trigger={"new_labels": 1000, "rest_share": 0.2})
    body, *_ = bodies.every_kind(studio_project(project))["created"]

    answer = web.client.post("/webhook", json=body)  # there is no batch at all: nothing is left of it

    assert answer.json()["result"]["round"] == 1
    assert [round_.trigger for round_ in rounds(project)] == ["batch_runs_out"]


def test_after_a_failed_round_only_a_demand_is_served_at_once(web: Web) -> None:
    project = make_project(trigger={"new_labels": 1000, "rest_share": 0.2})
    created, *_ = bodies.every_kind(studio_project(project))["created"]
    with transaction() as session:
        session.add(Round(project_id=project.id, number=1, workflow_id="gone", state="failed", finished_at=now()))

    resting = web.client.post("/webhook", json=created).json()["result"]
    demanded = web.client.post("/webhook", json={"action": "START_TRAINING", "project": studio_project(project)})

    assert resting == {"stored": True, "round": None}
    assert demanded.json()["result"] == {"stored": True, "round": 2}


def test_unknown_kinds_are_counted_and_answered(web: Web, project: Project) -> None:
    before = web.metric('nextbatch_events_total{outcome="unknown_kind"}')

    answer = web.client.post("/webhook", json={"action": "LABEL_LINK_CREATED", "project": studio_project(project)})

    assert answer.status_code == 200
    assert answer.json()["status"] == "ignored"
    assert stored(project) == []
    assert web.metric('nextbatch_events_total{outcome="unknown_kind"}') == before + 1


def test_unknown_projects_are_counted_and_answered(web: Web) -> None:
    before = web.metric('nextbatch_events_total{outcome="unknown_project"}')

    answer = web.client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 999_999}})

    assert answer.status_code == 200
    assert answer.json()["result"]["stored"] is False
    assert web.metric('nextbatch_events_total{outcome="unknown_project"}') == before + 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON"),
        (b"not json", "JSON"),
        (b"[1, 2]", "no JSON object"),
        (b"{}", "no `action`"),
        (b'{"action": 5}', "no `action`"),
        (b'{"action": "START_TRAINING"}', "no `project`"),
        (b'{"action": "START_TRAINING", "project": {"id": "x"}}', "`project` has no id"),
        (b'{"action": "START_TRAINING", "project": {"id": true}}', "`project` has no id"),
        (b'{"action": "START_TRAINING", "project": {"id": 99999999999999999999999}}', "`project` has no id"),
        (b'{"action": "ANNOTATION_CREATED", "project": {"id": 1}}', "`annotation` is no object"),
        (b'{"action": "ANNOTATION_CREATED", "project": {"id": 1}, "annotation": {"id": 1}}', "`task` has no id"),
        (b'{"action": "ANNOTATIONS_DELETED", "project": {"id": 1}, "annotations": {"id": 1}}', "is no list"),
        (b'{"action": "TASKS_DELETED", "project": {"id": 1}, "tasks": [5]}', "`tasks` has no id"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_bodies_are_refused_with_the_reason(web: Web, body: bytes, reason: str) -> None:
    answer = web.client.post("/webhook", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert reason in answer.text
    assert "Traceback" not in answer.text


def test_nothing_private_is_stored_or_logged(web: Web, project: Project) -> None:
    for body, *_ in bodies.every_kind(studio_project(project)).values():
        web.client.post("/webhook", json=body)
    web.client.post(
        "/webhook", json={"action": "TASKS_CREATED", "project": studio_project(project), "tasks": "private"}
    )

    rows = str([{name: getattr(event, name) for name in COLUMNS} for event in stored(project)])

    for private in ("leaked", "private", "person@example.org", "cat"):
        assert private not in rows
        assert private not in web.log.read_text()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
odd_bodies = st.fixed_dictionaries(
    {"action": st.sampled_from(sorted(events.KINDS))},
    optional=dict.fromkeys(("project", "annotation", "annotations", "task", "tasks"), json_values),
)


@given(json_values | odd_bodies)
def test_any_json_is_an_event_or_says_why_not(body: Any) -> None:
    try:
        event = events.parse(body)
    except (MalformedEvent, UnknownEvent):
        return
    assert all(type(id_) is int for id_ in (event.studio_project_id, *event.task_ids, *event.annotation_ids))


@pytest.mark.parametrize("given_", ["1.1795224187", "1", 1])
def test_a_project_id_stands_before_the_dot(given_: object) -> None:
    assert events.studio_project_id(given_) == 1


@pytest.mark.parametrize("given_", ["", ".5", "-1", "1e3", "0", "٣", None, True, 1.5, "9" * 30])
def test_what_is_no_project_id_is_refused(given_: object) -> None:
    with pytest.raises(MalformedEvent):
        events.studio_project_id(given_)

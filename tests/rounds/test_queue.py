"""One round runs and at most one waits; a round is due when the rules say so."""

import datetime as dt
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from backend.database import Batch, Event, Item, Pick, Project, Round, now, reading, transaction
from backend.rounds.queue import client, due_trigger, is_resting, request_round

pytestmark = pytest.mark.usefixtures("store")


def make_project(**trigger: Any) -> int:
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds", "trigger": trigger})
        session.add(project)
        session.flush()
        return project.id


def tell(project_id: int, action: str = "ANNOTATION_CREATED", seconds_ago: float = 0.0, count: int = 1) -> None:
    with transaction() as session:
        for _ in range(count):
            received = now() - dt.timedelta(seconds=seconds_ago)
            session.add(Event(project_id=project_id, action=action, received_at=received))


def due(project_id: int) -> str | None:
    with reading() as session:
        return due_trigger(session, session.get_one(Project, project_id))


def ask(project_id: int) -> int:
    with transaction() as session:
        return request_round(session, project_id, "hand").number


def set_state(project_id: int, number: int, **values: Any) -> None:
    with transaction() as session:
        session.execute(sa.update(Round).where(Round.project_id == project_id, Round.number == number).values(**values))


def test_asking_while_a_round_waits_changes_nothing() -> None:
    project = make_project()

    numbers = [ask(project) for _ in range(5)]

    assert numbers == [1] * 5
    assert [w.workflow_id for w in client().list_workflows()] == [f"round:{project}:1"]


def test_asking_while_a_round_runs_makes_exactly_one_wait() -> None:
    project = make_project()
    set_state(project, ask(project), state="running")

    numbers = [ask(project) for _ in range(5)]

    assert numbers == [2] * 5
    assert {w.workflow_id for w in client().list_workflows()} == {f"round:{project}:1", f"round:{project}:2"}


@pytest.mark.parametrize("state", ["failed", "cancelled", "done"])
def test_a_round_that_ended_does_not_wedge_the_project(state: str) -> None:
    project = make_project()
    set_state(project, ask(project), state=state)

    assert ask(project) == 2


def test_a_transaction_that_fails_leaves_neither_row_nor_workflow() -> None:
    project = make_project()

    def ask_and_fail() -> None:
        with transaction() as session:
            request_round(session, project, "hand")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_and_fail()

    with reading() as session:
        assert session.scalars(sa.select(Round)).all() == []
    assert client().list_workflows() == []


def test_many_askers_at_once_agree_on_one_round() -> None:
    project = make_project()
    gate = threading.Barrier(8)
    numbers: list[int] = []

    def run() -> None:
        gate.wait()
        numbers.append(ask(project))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert numbers == [1] * 8


@pytest.mark.parametrize(
    ("labels", "seconds_ago", "expected"),
    [(19, 60, None), (20, 60, "new_labels"), (20, 1, None), (50, 5.1, "new_labels")],
)
def test_a_round_is_due_after_enough_labels_and_quiet(labels: int, seconds_ago: float, expected: str | None) -> None:
    project = make_project(new_labels=20, quiet_s=5, rest_share=0)

    tell(project, seconds_ago=seconds_ago, count=labels)

    assert due(project) == expected


def test_annotators_who_never_pause_still_get_a_round_after_the_longest_wait() -> None:
    project = make_project(new_labels=20, quiet_s=5, max_wait_s=300, rest_share=0)

    tell(project, seconds_ago=301)
    tell(project, seconds_ago=0, count=19)

    assert due(project) == "new_labels"


def test_start_training_is_due_at_once_and_other_events_never() -> None:
    project = make_project()

    tell(project, "PROJECT_UPDATED", seconds_ago=1_000, count=100)
    before = due(project)
    tell(project, "START_TRAINING")

    assert (before, due(project)) == (None, "start_training")


def test_a_batch_that_runs_out_is_due_without_quiet() -> None:
    project = make_project(new_labels=1_000, rest_share=0.2)
    publish_batch(project, size=10)

    tell(project, count=7)
    before = due(project)
    tell(project)

    assert (before, due(project)) == (None, "batch_runs_out")


def test_failed_rounds_are_not_tried_again_at_once() -> None:
    project = make_project()
    number = ask(project)

    set_state(project, number, state="failed", finished_at=now())
    with reading() as session:
        at_once = is_resting(session, project)
    set_state(project, number, finished_at=now() - dt.timedelta(seconds=61))
    with reading() as session:
        later = is_resting(session, project)

    assert (at_once, later) == (True, False)


def publish_batch(project: int, size: int) -> None:
    number = ask(project)
    with transaction() as session:
        round_ = session.scalars(sa.select(Round).where(Round.number == number)).one()
        round_.state = "done"
        published_at = now() - dt.timedelta(seconds=60)
        batch = Batch(
            project_id=project, round_id=round_.id, number=1, version="v0+b1", strategy="random", state="published",
            published_at=published_at,
        )  # fmt: skip
        session.add(batch)
        session.flush()
        for rank in range(size):
            item = Item(project_id=project, key=f"{rank:040d}", uri=f"file:{rank}")
            session.add(item)
            session.flush()
            session.add(Pick(batch_id=batch.id, rank=rank, item_id=item.id))

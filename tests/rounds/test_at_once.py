"""Several at one moment: nobody waits for another for ever, and what one of them does is done once."""

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest

from backend.database import (
    Batch,
    EncoderChange,
    Event,
    ModelVersion,
    Project,
    Round,
    Worker,
    now,
    reading,
    transaction,
)
from backend.learning import registry
from backend.learning.heads import Head
from backend.learning.registry import Lineage
from backend.processes import wait_until
from backend.rounds import changeover, changes, jobs, takeover, worker
from backend.rounds.batch import save_batch
from backend.rounds.items import Named
from backend.rounds.queue import prepare_database, request_round
from backend.studio.labels import image_config
from backend.web import deeds
from backend.web.app import create_app

WITHIN_S = 60.0

on_postgres = pytest.mark.parametrize("store", ["postgres"], indirect=True)
"""SQLite lets one transaction write at a time."""


@pytest.fixture
def project(store: str) -> Project:
    assert store
    with transaction() as session:
        made = Project(name="birds", config={"name": "birds"}, label_config=image_config(("a", "b")))
        session.add(made)
    return made


def somebody_waits() -> bool:
    """Whether a transaction waits for another one's lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with reading() as session:
        return bool(session.scalar(sa.text(waiting)))


def round_of(project: Project, number: int, **values: object) -> Round:
    with transaction() as session:
        made = Round(project_id=project.id, number=number, workflow_id=f"w{number}", **values)
        session.add(made)
    return made


@on_postgres
def test_two_who_write_something_down_and_then_ask_for_a_round_both_get_it(project: Project) -> None:
    written = threading.Barrier(2)

    def tell_and_ask() -> int:
        with transaction() as session:
            session.add(Event(project_id=project.id, action="START_TRAINING"))
            session.flush()
            written.wait(WITHIN_S)
            return request_round(session, project.id, "start_training").number

    with ThreadPoolExecutor(2) as people:
        numbers = [asked.result() for asked in [people.submit(tell_and_ask) for _ in range(2)]]

    assert numbers == [1, 1]


@on_postgres
def test_a_change_that_gets_ready_does_not_fail_whoever_asks_for_another_encoder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        change = EncoderChange(
            project_id=project.id, encoder=Named(digest="a" * 64).model_dump(mode="json"), actor="x", state="encoding"
        )
        session.add(change)
    asking, has_change = threading.Event(), threading.Event()
    find, request = changes.open_change, changeover.request_round

    def look(session: Session, project_id: int) -> EncoderChange | None:
        asking.set()
        assert wait_until(lambda: has_change.is_set() or somebody_waits(), WITHIN_S)
        return find(session, project_id)

    def ask_for_round(*given: object) -> Round:
        has_change.set()
        return request(*given)

    def ask() -> EncoderChange | None:
        with transaction() as session:
            there = session.get_one(Project, project.id)
            return changes.ask(session, there, Named(digest="b" * 64), "somebody")

    monkeypatch.setattr(changes, "open_change", look)
    monkeypatch.setattr(changeover, "request_round", ask_for_round)
    with ThreadPoolExecutor(1) as people:
        asked = people.submit(ask)
        assert asking.wait(WITHIN_S)
        with pytest.raises(changeover.ChangeCancelled):
            changeover.get_ready(change.id)

    assert asked.result() is not None
    with reading() as session:
        states = session.scalars(sa.select(EncoderChange.state).order_by(EncoderChange.id)).all()
    assert states == ["cancelled", "waiting"]


def keep_version(session: Session, project: Project, round_: Round) -> int:
    head = Head(("a", "b"), np.zeros(2), np.ones(2), np.zeros((2, 2)), np.zeros(2))
    origin = Lineage("e" * 64, snapshot="", seed=round_.number, metrics={}, lineage={})
    return registry.record(session, project.id, round_.id, head, origin).number


@on_postgres
def test_a_version_keeps_its_head_whose_equal_is_deleted_at_that_moment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = [round_of(project, number) for number in (1, 2)]
    with transaction() as session:
        keep_version(session, project, rounds[0])
    save, people = registry.save_head, ThreadPoolExecutor(1)

    def delete() -> bool:
        with transaction() as session:
            return registry.delete(session, registry.find(session, project.id, "v1"), "somebody")

    def save_and_let_delete(head: Head) -> Path:
        path = save(head)
        deleting.append(people.submit(delete))
        assert wait_until(lambda: somebody_waits() or deleting[0].done(), WITHIN_S)
        return path

    deleting = list[Future[bool]]()
    monkeypatch.setattr(registry, "save_head", save_and_let_delete)
    with people, transaction() as session:
        keep_version(session, project, rounds[1])

    assert deleting[0].result() is False
    with reading() as session:
        registry.load_head(registry.find(session, project.id, "v2"))


def keep_batch(session: Session, project: Project, round_: Round) -> int:
    return save_batch(session, project, round_, None, [], [], {}, None, {}).number


@on_postgres
@pytest.mark.parametrize(("keep", "kind"), [(keep_version, ModelVersion), (keep_batch, Batch)])
def test_a_command_and_a_worker_that_make_one_at_once_number_them_apart(
    project: Project, keep: Callable[[Session, Project, Round], int], kind: type[ModelVersion] | type[Batch]
) -> None:
    rounds = [round_of(project, number) for number in (1, 2)]
    is_made, may_end = threading.Event(), threading.Event()

    def first() -> int:
        with transaction() as session:
            number = keep(session, project, rounds[0])
            is_made.set()
            assert may_end.wait(WITHIN_S)
            return number

    def second() -> int:
        with transaction() as session:
            return keep(session, project, rounds[1])

    with ThreadPoolExecutor(2) as both:
        before = both.submit(first)
        assert is_made.wait(WITHIN_S)
        after = both.submit(second)
        assert wait_until(lambda: somebody_waits() or after.done(), WITHIN_S)
        may_end.set()

    assert (before.result(), after.result()) == (1, 2)
    with reading() as session:
        assert sorted(session.scalars(sa.select(kind.number))) == [1, 2]


def test_a_round_that_begins_while_another_is_found_due_is_not_followed_by_one_for_the_same_events(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        session.add(Event(project_id=project.id, action="START_TRAINING"))
    find, found = worker.due_trigger, list[str | None]()

    def find_and_let_it_begin(session: Session, project: Project) -> str | None:
        found.append(find(session, project))
        if len(found) == 1:  # the other worker's round claims the event between the look and the demand
            begun = round_of(project, 1, state="running")
            with transaction() as other:
                other.execute(sa.update(Event).values(round_number=begun.number))
        return found[-1]

    monkeypatch.setattr(worker, "due_trigger", find_and_let_it_begin)
    worker.request_due_rounds()

    with reading() as session:
        assert list(session.scalars(sa.select(Round.number))) == [1]


@dataclasses.dataclass(frozen=True)
class Workflow:
    """As the engine lists it."""

    workflow_id: str
    executor_id: str
    queue_name: str = takeover.ROUNDS


def test_of_two_workers_that_see_the_same_orphan_one_lets_it_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_of(project, 1, state="running")
    with transaction() as session:
        for name, age_s in (("a", 0), ("b", 0), ("dead", 60)):
            session.add(Worker(executor_id=name, host="h", pid=1, seen_at=now() - dt.timedelta(seconds=age_s)))
    runs_on, resumed = ["dead"], []

    def list_workflows(*, status: str | list[str], **_: object) -> list[Workflow]:
        if status != "PENDING":
            return []
        seen = [Workflow("w1", runs_on[-1])]
        if others:
            takeover.take_over(others.pop())  # between the look and what follows from it
        return seen

    def resume_workflows(ids: list[str], queue_name: str) -> None:
        resumed.append((ids, queue_name))
        runs_on.append("a")

    monkeypatch.setattr(takeover.DBOS, "list_workflows", list_workflows)
    monkeypatch.setattr(takeover.DBOS, "resume_workflows", resume_workflows)
    others = ["a"]
    takeover.take_over("b")
    others = ["b"]
    takeover.take_over("a")

    assert resumed == [(["w1"], takeover.ROUNDS)]


def test_a_round_whose_jobs_another_one_cleared_away_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_database()
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(jobs, "drain", lambda *_: 0)

    gathered = jobs._gather(1, 1, None, lambda done, total, _: told.append((done, total)))  # type: ignore[arg-type]

    assert gathered == {"encoded": 0, "failed": 0}
    assert told == [(0, 0)]


@on_postgres
def test_a_rollback_that_is_sent_twice_goes_one_step_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        made = round_of(project, number)
        with transaction() as session:
            keep_version(session, project, made)
            registry.promote(session, registry.find(session, project.id, f"v{number}"), "somebody")
    monkeypatch.setattr(deeds, "require_form", lambda: None)
    monkeypatch.setattr(deeds, "actor", lambda: "somebody")
    find, go = registry.earlier, registry.rollback
    looked, is_back = list[str](), threading.Event()

    def look(session: Session, project_id: int) -> ModelVersion:
        found = find(session, project_id)
        looked.append(found.name)
        if not is_back.is_set():
            assert wait_until(lambda: len(looked) > 1 or somebody_waits(), WITHIN_S)
        return found

    def go_back(session: Session, project_id: int, actor: str) -> object:
        assert threading.current_thread() is first or is_back.wait(WITHIN_S)
        return go(session, project_id, actor)

    def send() -> None:
        with app.test_request_context("/", method="POST", data={"version": "v2"}), suppress(BadRequest):
            deeds.roll_back("birds")
        is_back.set()

    app = create_app()
    monkeypatch.setattr(deeds.registry, "earlier", look)
    monkeypatch.setattr(deeds.registry, "rollback", go_back)
    first, second = threading.Thread(target=send), threading.Thread(target=send)
    first.start()
    assert wait_until(lambda: len(looked) == 1, WITHIN_S)
    second.start()
    for one in (first, second):
        one.join(2 * WITHIN_S)

    with reading() as session:
        answering = registry.champion(session, project.id)
    assert answering is not None
    assert answering.name == "v2"


def test_a_duty_of_a_worker_outlives_what_it_stumbles_over() -> None:
    stopping, calls = threading.Event(), []

    def stumble() -> None:
        calls.append(len(calls))
        if len(calls) > 1:
            stopping.set()
        raise ValueError("a row that is not understood")

    duty = worker._every(0.0, stumble, stopping)

    assert stopping.wait(WITHIN_S)
    duty.join(WITHIN_S)
    assert calls == [0, 1]

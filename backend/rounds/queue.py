"""Ask for a round: one runs and at most one waits per project. Torch-free, so that the web process may ask too.

A round's number is its identity. Asking while a round waits changes nothing; asking while one runs makes the next
number wait. The row and the engine's workflow are written in the caller's transaction, so an event and the round
that it causes are durable together or not at all. Queries are rounds that answer a caller: each is one of its own, and
they wait in line.
"""

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, run_dbos_database_migrations
from sqlalchemy.orm import Session

from backend import migrations
from backend.database import Batch, Event, Pick, Project, Round, engine, lock_project, now
from backend.errors import TooManyQueries
from backend.settings import settings

ROUNDS = "rounds"
JOBS = "jobs"
CHANGES = "encoder_changes"
ORPHANS = "orphans"  # jobs of dead workers: in a queue of their own, they do not wait until a job of the living ends
APPLICATION = "nextbatch"
APPLICATION_VERSION = "1"  # pinned: DBOS would otherwise hash the code, and an upgrade would strand rounds in flight
FORCING_ACTIONS = ("START_TRAINING",)
HERE = "here:"
"""What the workflow id of a round begins with that a command runs in its own process."""
QUERY = "query"
"""The trigger of a round that answers a query: it publishes nothing, and reads events without claiming them."""
MOST_WAITING = 100  # queries of a project: each costs a round's work, and whoever asks for more is told to wait
LABEL_ACTIONS = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")


def prepare_database() -> None:
    """Bring our tables and the engine's to the newest version. Runs before any process connects."""
    settings().home.mkdir(parents=True, exist_ok=True)
    migrations.upgrade(engine())
    run_dbos_database_migrations(system_database_url=settings().database)


@lru_cache(maxsize=1)
def client() -> DBOSClient:
    """The engine as seen from outside the worker."""
    return DBOSClient(system_database_engine=engine(), serializer=DBOSPortableJSONSerializer(), lazy=True)


def workflow_id(project_id: int, number: int) -> str:
    return f"round:{project_id}:{number}"


def request_round(session: Session, project_id: int, trigger: str, like: Mapping[str, Any] | None = None) -> Round:
    """The round that will see all that is committed before it begins; made in this transaction if none waits.

    like: what its batch shall be like; where one waits already, that one's batch shall.
    """
    lock_project(session, project_id)
    waiting = session.scalar(_waiting(project_id).where(Round.trigger != QUERY).limit(1))
    if waiting is not None:
        waiting.like = dict(like or waiting.like)
        return waiting
    return _enqueue(session, project_id, "round", trigger=trigger, like=dict(like or {}))


def request_query(session: Session, project_id: int, query: Mapping[str, Any]) -> Round:
    """A round that answers this query, made in this transaction. Raises TooManyQueries."""
    lock_project(session, project_id)
    waiting = session.scalars(_waiting(project_id).where(Round.trigger == QUERY).limit(MOST_WAITING)).all()
    if len(waiting) == MOST_WAITING:
        raise TooManyQueries(count=MOST_WAITING)
    return _enqueue(session, project_id, "query", trigger=QUERY, query=dict(query))


def cancel(session: Session, project_id: int, number: int) -> Round | None:
    """The round of that number, which will not go on: one that waits ends now, one that runs as soon as it notices.

    That is at its next step, or within two seconds of a scan; what was encoded stays. One that ended stays as it is.
    """
    mine = sa.update(Round).where(Round.project_id == project_id, Round.number == number)
    end = {"state": "cancelled", "is_unwanted": True, "finished_at": now()}
    session.execute(mine.where(Round.state == "waiting").values(end))
    session.execute(mine.where(Round.state == "running").values(is_unwanted=True))
    return session.scalar(sa.select(Round).where(Round.project_id == project_id, Round.number == number))


def _waiting(project_id: int) -> sa.Select[Round]:
    return sa.select(Round).where(Round.project_id == project_id, Round.state == "waiting")


def insert_round(session: Session, project_id: int, **values: Any) -> Round:
    """The project's next round as a row alone, for a process that runs it itself: the engine does not know it."""
    lock_project(session, project_id)
    latest = session.scalar(sa.select(sa.func.max(Round.number)).where(Round.project_id == project_id))
    number = (latest or 0) + 1
    round_ = Round(project_id=project_id, number=number, workflow_id=f"{HERE}{project_id}:{number}", **values)
    session.add(round_)
    session.flush()
    return round_


def _enqueue(session: Session, project_id: int, workflow: str, **values: Any) -> Round:
    round_ = insert_round(session, project_id, **values)
    round_.workflow_id = workflow_id(project_id, round_.number)
    session.flush()
    client().enqueue_in_transaction(
        session,
        {
            "queue_name": ROUNDS,
            "workflow_name": workflow,
            "workflow_id": round_.workflow_id,
            "queue_partition_key": str(project_id),
            "app_version": APPLICATION_VERSION,
        },
        project_id,
        round_.number,
    )
    return round_


def request_change(session: Session, change_id: int) -> None:
    """Let a worker that makes rounds carry out this change of an encoder; in the transaction that made its row."""
    _enqueue_row(session, CHANGES, "encoder_change", change_id)


def request_job(session: Session, job_id: int) -> None:
    """Let any worker take this part of a scan; in the transaction that made its row."""
    _enqueue_row(session, JOBS, "job", job_id)


def _enqueue_row(session: Session, queue: str, workflow: str, id_: int) -> None:
    options: EnqueueOptions = {
        "queue_name": queue,
        "workflow_name": workflow,
        "workflow_id": f"{workflow}:{id_}",
        "app_version": APPLICATION_VERSION,
    }
    client().enqueue_in_transaction(session, options, id_)


def due_trigger(session: Session, project: Project, at: dt.datetime | None = None) -> str | None:
    """Why a round is due, or None: new labels and quiet (or too long a wait), a batch running out, a demand."""
    rules = project.settings.trigger
    unread = session.execute(
        sa.select(Event.action, sa.func.count(), sa.func.min(Event.received_at), sa.func.max(Event.received_at))
        .where(Event.project_id == project.id, Event.round_number.is_(None))
        .group_by(Event.action)
    ).all()
    if not unread:
        return None
    if any(action in FORCING_ACTIONS for action, *_ in unread):
        return "start_training"
    labels = [row for row in unread if row[0] in LABEL_ACTIONS]
    if not labels:
        return None
    at = at or now()
    waited_s = (at - min(row[2] for row in labels)).total_seconds()
    quiet_s = (at - max(row[3] for row in labels)).total_seconds()
    if sum(row[1] for row in labels) >= rules.new_labels and (quiet_s >= rules.quiet_s or waited_s >= rules.max_wait_s):
        return "new_labels"
    if rules.rest_share > 0 and rest_of_batch(session, project.id) <= rules.rest_share:
        return "batch_runs_out"
    return None


def is_resting(session: Session, project_id: int) -> bool:
    """Whether rounds failed so recently that the next had better wait: a minute, doubled each time, up to an hour."""
    ends = session.execute(
        sa.select(Round.state, Round.finished_at)
        .where(Round.project_id == project_id, Round.state.in_(("done", "failed")), Round.trigger != QUERY)
        .order_by(Round.number.desc())
        .limit(8)
    ).all()
    failures = 0
    for state, _ in ends:
        if state == "done":
            break
        failures += 1
    if failures == 0 or ends[0].finished_at is None:
        return False
    rest_s: int = min(60 * 2 ** (failures - 1), 3_600)
    return bool(now() < ends[0].finished_at + dt.timedelta(seconds=rest_s))


def rest_of_batch(session: Session, project_id: int) -> float:
    """Share of the published batch for which no annotation event came yet; 0 where there is no batch."""
    batch = session.scalar(
        sa.select(Batch).where(Batch.project_id == project_id, Batch.state == "published").order_by(Batch.number.desc())
    )
    if batch is None:
        return 0.0
    size = session.scalar(sa.select(sa.func.count()).select_from(Pick).where(Pick.batch_id == batch.id)) or 0
    done = session.scalar(
        sa.select(sa.func.count())
        .select_from(Event)
        .where(
            Event.project_id == project_id,
            Event.action.in_(LABEL_ACTIONS[:2]),
            Event.received_at >= (batch.published_at or batch.created_at),
        )
    )
    return 1.0 if size == 0 else max(0.0, 1 - (done or 0) / size)

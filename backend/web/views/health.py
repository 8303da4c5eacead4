"""What is wrong or might be: items that failed, alerts, workers that fell silent, webhooks that stay away."""

import datetime as dt
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Alert, Event, Item, Project, Round, Worker, now
from backend.rounds.heartbeat import DEAD_AFTER
from backend.rounds.reconcile import RECONCILE
from backend.web.views.page import Page, cut
from backend.web.views.task import item_name, task_of

MOST_FAILED = 5_000  # failed items looked at
MOST_REASONS = 20
MOST_WORKERS = 100
_VARYING = re.compile(r"(?:[a-z0-9+]+://|/)\S+|\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """A reason for which items failed, in the words of one of them, and how many there are alike."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class AlertView:
    """Something a person should know: what was seen, what says so, and what to do."""

    id: int
    severity: str
    code: str
    message: str
    evidence: str
    mend: str
    round: int | None
    created_at: dt.datetime


@dataclass(frozen=True)
class WorkerView:
    """A worker process and when it last gave a sign."""

    executor_id: str
    host: str
    pid: int
    started_at: dt.datetime
    seen_at: dt.datetime
    is_alive: bool


@dataclass(frozen=True)
class LastEvent:
    """The newest thing that Label Studio told us of this project."""

    action: str
    received_at: dt.datetime


@dataclass(frozen=True)
class Health:
    """A project's health. `failures` covers the newest 5,000 failed items, the commonest 20 reasons first.

    `untold` is how many rounds had to be asked for because labels came of which no webhook told.
    """

    failures: list[Failure]
    workers: list[WorkerView]
    last_event: LastEvent | None
    untold: int


def health(session: Session, project: Project) -> Health:
    """Failures by reason, workers by name, and the last event."""
    event = session.execute(
        sa.select(Event.action, Event.received_at)
        .where(Event.project_id == project.id)
        .order_by(Event.id.desc())
        .limit(1)
    ).one_or_none()
    missed = (Round.project_id == project.id, Round.trigger == RECONCILE)
    untold = session.scalar(sa.select(sa.func.count()).select_from(Round).where(*missed)) or 0
    return Health(failures(session, project), workers(session), None if event is None else LastEvent(*event), untold)


def failures(session: Session, project: Project) -> list[Failure]:
    """Failed items by reason. Addresses and numbers in a reason are what makes equal reasons look different."""
    task = task_of(project)
    is_inline = task is not None and task.is_inline
    rows = session.execute(
        sa.select(Item.failure, Item.uri)
        .where(Item.project_id == project.id, Item.state == "failed")
        .order_by(Item.id.desc())
        .limit(MOST_FAILED)
    ).all()
    counted: Counter[str] = Counter()
    alike: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for reason, uri in rows:
        counted[kind_of(reason)] += 1
        alike[kind_of(reason)].append((reason or "unknown", uri))
    return [
        Failure(alike[one][0][0], count, item_name(alike[one][0][1], is_inline))
        for one, count in counted.most_common(MOST_REASONS)
    ]


def failed_items(session: Session, project: Project, reason: str) -> list[int]:
    """Ids of the failed items whose reason is alike, among the newest 5,000."""
    rows = session.execute(
        sa.select(Item.id, Item.failure)
        .where(Item.project_id == project.id, Item.state == "failed")
        .order_by(Item.id.desc())
        .limit(MOST_FAILED)
    )
    return [item_id for item_id, failure in rows if kind_of(failure) == kind_of(reason)]


def kind_of(reason: str | None) -> str:
    """What is alike in reasons that differ in addresses and numbers."""
    return _VARYING.sub("…", reason or "unknown")


def workers(session: Session) -> list[WorkerView]:
    """The workers that gave a sign last, at most 100."""
    at = now()
    rows = session.scalars(sa.select(Worker).order_by(Worker.seen_at.desc()).limit(MOST_WORKERS))
    return [
        WorkerView(row.executor_id, row.host, row.pid, row.started_at, row.seen_at, at - row.seen_at < DEAD_AFTER)
        for row in rows
    ]


def alerts(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[AlertView]:
    """Alerts, newest first, from id `newest` down."""
    query = sa.select(Alert, Round.number).join(Round, Round.id == Alert.round_id, isouter=True)
    query = query.where(Alert.project_id == project.id)
    if newest is not None:
        query = query.where(Alert.id <= newest)
    rows = session.execute(query.order_by(Alert.id.desc()).limit(limit + 1)).all()
    views = [
        AlertView(row.id, row.severity, row.code, row.message, row.evidence, row.mend, number, row.created_at)
        for row, number in rows
    ]
    return cut(views, limit, lambda one: one.id)

"""Queries: how far each is, and the items that it chose, in order."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Batch, ModelVersion, Pick, Project, Round
from backend.rounds.queue import QUERY
from backend.web.views.batches import PickView, find_batch
from backend.web.views.page import Page, cut


@dataclass(frozen=True)
class QueryView:
    """A query: waiting, running, done, failed or cancelled; `done` of `total` is the running step's progress.

    `strategy` is the one asked for, `chosen` the one that chose (they differ for auto, and where a model is missing:
    `policy` says why). `size` items were chosen with the model `model`; none of this before it is done.
    """

    number: int
    state: str
    step: str
    done: int | None
    total: int | None
    budget: int
    strategy: str | None
    parameters: dict[str, Any]
    chosen: str | None
    policy: str | None
    model: str | None
    size: int | None
    failure: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


def queries(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[QueryView]:
    """Queries, newest first, from number `newest` down."""
    found = _of(project)
    if newest is not None:
        found = found.where(Round.number <= newest)
    rows = session.execute(found.order_by(Round.number.desc()).limit(limit + 1)).all()
    return cut([query_view(session, round_, batch) for round_, batch in rows], limit, lambda one: one.number)


def find_query(session: Session, project: Project, number: int) -> QueryView | None:
    """The query of that number."""
    row = session.execute(_of(project).where(Round.number == number)).first()
    return None if row is None else query_view(session, *row)


def picks_of(session: Session, project: Project, number: int, limit: int, first: int = 0) -> Page[PickView] | None:
    """What a query chose, from rank `first` on; empty before it is done, None where there is no such query."""
    row = session.execute(_of(project).where(Round.number == number)).first()
    if row is None:
        return None
    if row[1] is None:
        return Page([], None)
    found = find_batch(session, project, row[1].number, limit, first, is_whole=True)
    return None if found is None else found.picks


def _of(project: Project) -> sa.Select[Round, Batch | None]:
    mine = (Round.project_id == project.id, Round.trigger == QUERY)
    return sa.select(Round, Batch).outerjoin(Batch, Batch.round_id == Round.id).where(*mine)


def query_view(session: Session, round_: Round, batch: Batch | None = None) -> QueryView:
    """The row as it is shown, with the batch that answers it."""
    size = model = None
    if batch is not None:
        size = session.scalar(sa.select(sa.func.count()).select_from(Pick).where(Pick.batch_id == batch.id))
        version = session.get(ModelVersion, batch.model_version_id) if batch.model_version_id else None
        model = version.name if version is not None else None
    return QueryView(
        number=round_.number,
        state=round_.state,
        step=round_.step,
        done=round_.progress.get("done"),
        total=round_.progress.get("total"),
        budget=round_.query["budget"],
        strategy=round_.query["strategy"],
        parameters=round_.query["parameters"],
        chosen=None if batch is None else batch.strategy,
        policy=None if batch is None else batch.policy,
        model=model,
        size=size,
        failure=round_.failure,
        created_at=round_.created_at,
        started_at=round_.started_at,
        finished_at=round_.finished_at,
    )

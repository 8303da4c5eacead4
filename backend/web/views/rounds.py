"""Rounds: what each did, and where the running one is."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Project, Round
from backend.web.views.page import Page, cut

STEPS = ("begin", "sync", "encode", "learn", "choose", "publish", "restock", "finish")


@dataclass(frozen=True)
class RoundView:
    """A round. `done` of `total` is the running step's progress, where it tells any; `report` is JSON."""

    number: int
    state: str
    trigger: str
    step: str
    done: int | None
    total: int | None
    report: dict[str, Any]
    failure: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def seconds(self) -> float | None:
        """How long it took, once it ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


def view(round_: Round) -> RoundView:
    """The row as it is shown."""
    return RoundView(
        number=round_.number,
        state=round_.state,
        trigger=round_.trigger,
        step=round_.step,
        done=round_.progress.get("done"),
        total=round_.progress.get("total"),
        report=round_.report,
        failure=round_.failure,
        created_at=round_.created_at,
        started_at=round_.started_at,
        finished_at=round_.finished_at,
    )


def latest_round(session: Session, project_id: int) -> RoundView | None:
    """The round that runs, or else the newest one."""
    mine = sa.select(Round).where(Round.project_id == project_id)
    running = session.scalar(mine.where(Round.state == "running").order_by(Round.number.desc()).limit(1))
    found = running or session.scalar(mine.order_by(Round.number.desc()).limit(1))
    return None if found is None else view(found)


def recent_rounds(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[RoundView]:
    """Rounds, newest first, from number `newest` down."""
    query = sa.select(Round).where(Round.project_id == project.id)
    if newest is not None:
        query = query.where(Round.number <= newest)
    rows = session.scalars(query.order_by(Round.number.desc()).limit(limit + 1)).all()
    return cut([view(row) for row in rows], limit, lambda one: one.number)


def find_round(session: Session, project: Project, number: int) -> RoundView | None:
    """The round of that number."""
    found = session.scalar(sa.select(Round).where(Round.project_id == project.id, Round.number == number))
    return None if found is None else view(found)

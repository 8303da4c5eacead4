"""What a round, a part of a scan or a change of the encoder wrote, as far as it is kept."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import LogLine, Project
from backend.rounds.journal import run_of
from backend.web.views.page import Page, cut

KINDS = ("rounds", "jobs", "encoder-changes")


@dataclass(frozen=True)
class LineView:
    """A line of a log: when, how grave (info, warning, error), what happened, and its facts in words."""

    id: int
    at: dt.datetime
    level: str
    event: str
    facts: dict[str, str]


def lines(
    session: Session, project: Project, kind: str, number: int, limit: int, newest: int | None = None
) -> Page[LineView] | None:
    """The lines, newest first, from id `newest` down; None where the project has nothing of that kind and number."""
    run = run_of(session, project, kind, number)
    return None if run is None else _page(session, run, limit, newest)


def last_lines(session: Session, project: Project, kind: str, number: int, limit: int) -> list[LineView]:
    """The newest lines, the newest last."""
    found = lines(session, project, kind, number, limit)
    return [] if found is None else found.items[::-1]


def _page(session: Session, run: str, limit: int, newest: int | None) -> Page[LineView]:
    query = sa.select(LogLine).where(LogLine.run == run)
    if newest is not None:
        query = query.where(LogLine.id <= newest)
    rows = session.scalars(query.order_by(LogLine.id.desc()).limit(limit + 1)).all()
    return cut([LineView(row.id, row.at, row.level, row.event, row.facts) for row in rows], limit, lambda one: one.id)

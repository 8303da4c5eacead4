"""What people decided by hand about a project: marked items, and the newest lines of its books."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Deed, Item, Mark, Project
from backend.web.views.task import item_name, task_of

MOST_MARKED = 200


@dataclass(frozen=True)
class MarkView:
    """An item that comes first, or never."""

    item_id: int
    name: str
    kind: str


@dataclass(frozen=True)
class DeedView:
    """Who did what, and when."""

    actor: str
    action: str
    detail: str
    created_at: dt.datetime


@dataclass(frozen=True)
class Hand:
    """Items put `first` in their order and `never` ones, at most 200 of each; the newest deeds first."""

    first: list[MarkView]
    never: list[MarkView]
    deeds: list[DeedView]

    def kind_of(self, item_id: int) -> str:
        """What is decided about an item; empty where nothing is."""
        return next((one.kind for one in (*self.first, *self.never) if one.item_id == item_id), "")


def by_hand(session: Session, project: Project, deeds: int = 10) -> Hand:
    """Marks and books of the project."""
    task = task_of(project)
    is_inline = task is not None and task.is_inline

    def marked(kind: str) -> list[MarkView]:
        query = sa.select(Mark.item_id, Item.uri).join(Item, Item.id == Mark.item_id)
        query = query.where(Mark.project_id == project.id, Mark.kind == kind).order_by(Mark.place).limit(MOST_MARKED)
        return [MarkView(item_id, item_name(uri, is_inline), kind) for item_id, uri in session.execute(query)]

    return Hand(marked("first"), marked("never"), books(session, project, deeds))


def books(session: Session, project: Project, limit: int) -> list[DeedView]:
    """The newest lines of the project's books."""
    query = sa.select(Deed).where(Deed.project_id == project.id).order_by(Deed.id.desc()).limit(limit)
    return [DeedView(row.actor, row.action, row.detail, row.created_at) for row in session.scalars(query)]

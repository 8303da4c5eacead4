"""Items, a page at a time."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Item, Project
from backend.web.views.batches import labels_of
from backend.web.views.page import Page, cut
from backend.web.views.task import holds_texts, listed_uri

STATES = ("new", "encoded", "failed", "gone")


@dataclass(frozen=True)
class ItemView:
    """One item. `label` is the newest one, if it has any; `content_hash` is known once its bytes were read.

    `uri` is the address; of a text that stands in a task, its first 2,000 characters.
    """

    id: int
    key: str
    uri: str
    state: str
    is_holdout: bool
    label: str | None
    failure: str | None
    content_hash: str | None
    task_id: int | None


def items(session: Session, project: Project, limit: int, first: int = 0, state: str | None = None) -> Page[ItemView]:
    """Items by id, from `first` on, perhaps of one state only."""
    ids: list[int] = []
    for one in STATES if state is None else (state,):  # the index is by state: without one it would sort the whole pool
        of_state = sa.select(Item.id).where(Item.project_id == project.id, Item.state == one, Item.id >= first)
        ids += session.scalars(of_state.order_by(Item.id).limit(limit + 1))
    listed = sa.select(Item).where(Item.id.in_(sorted(ids)[: limit + 1])).order_by(Item.id)
    rows = session.scalars(listed).all()
    labels = labels_of(session, [row.id for row in rows])
    is_inline = holds_texts(project)
    views = [
        ItemView(
            id=row.id,
            key=row.key,
            uri=listed_uri(row.uri, is_inline),
            state=row.state,
            is_holdout=row.is_holdout,
            label=labels.get(row.id),
            failure=row.failure,
            content_hash=row.content_hash,
            task_id=row.task_id,
        )
        for row in rows
    ]
    return cut(views, limit, lambda one: one.id)


def find_item(session: Session, project: Project, item_id: int) -> Item | None:
    """The item of that id, if it is this project's."""
    return session.scalar(sa.select(Item).where(Item.project_id == project.id, Item.id == item_id))

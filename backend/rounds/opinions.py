"""Several people's labels of one item: their votes, and which labelled items somebody else could label too."""

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import Annotation, Item
from backend.pool.catalog import Candidates

_RECENT = 1_000
"""Labels back to which a person counts as one who is there to be asked."""


def second_opinions(session: Session, project_id: int) -> Candidates:
    """Labelled items outside the holdout that a person who labels here has not seen, by id; none while one works alone.

    A person is somebody with one of the latest 1,000 annotations that took time: imported ones took none. Skipped items
    are left alone.
    """
    mine = (Annotation.project_id == project_id, Annotation.deleted_at.is_(None), Annotation.annotator.is_not(None))
    latest = (
        sa.select(Annotation.annotator)
        .where(*mine, Annotation.lead_time_s.is_not(None))
        .order_by(Annotation.updated_at.desc(), Annotation.id.desc())
        .limit(_RECENT)
        .subquery()
    )
    people = {str(person) for person in session.scalars(sa.select(latest.c.annotator).distinct())}
    if len(people) < 2:
        return Candidates(np.empty(0, np.int64), ())
    query = (
        sa.select(Item.id, Item.content_hash, Annotation.annotator, Annotation.label)
        .join(Annotation, Annotation.item_id == Item.id)
        .where(*mine, Item.state == "encoded", Item.is_holdout.is_(False), Item.task_id.is_not(None))
        .order_by(Item.id)
    )
    asked: dict[int, set[str]] = {}
    content: dict[int, str] = {}
    skipped: set[int] = set()
    for item_id, content_hash, annotator, label in session.execute(query):
        asked.setdefault(item_id, set()).add(annotator or "")
        content[item_id] = content_hash or ""
        if label is None:
            skipped.add(item_id)
    found = [item_id for item_id, who in asked.items() if people - who and item_id not in skipped]
    return Candidates(np.array(found, dtype=np.int64), tuple(content[item_id] for item_id in found))


def merged(pool: Candidates, again: Candidates) -> Candidates:
    """Both, by id."""
    ids = np.concatenate([pool.ids, again.ids])
    order = np.argsort(ids, kind="stable")
    hashes = pool.hashes + again.hashes
    return Candidates(ids[order], tuple(hashes[row] for row in order.tolist()))


def votes(session: Session, project_id: int, ids: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int32]:
    """The class that each annotator gave each of these items, which come sorted, (n, A); -1 where none or one that the
    head does not know. Of two by one person, the later counts. A is 1 at least.
    """
    said = session.execute(
        sa.select(Annotation.item_id, Annotation.annotator, Annotation.label)
        .where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
        .order_by(Annotation.updated_at, Annotation.external_id)
    ).all()
    place = {label: index for index, label in enumerate(classes)}
    people = {who: column for column, who in enumerate(sorted({annotator or "?" for _, annotator, _ in said}))}
    table = np.full((len(ids), max(1, len(people))), -1, dtype=np.int32)
    given = np.array([item_id for item_id, _, _ in said], dtype=np.int64)
    rows = np.searchsorted(ids, given)
    is_here = (rows < len(ids)) & (ids[np.minimum(rows, len(ids) - 1)] == given) if len(ids) else given < 0
    for at in np.flatnonzero(is_here).tolist():
        _, annotator, label = said[at]
        if label in place:
            table[rows[at], people[annotator or "?"]] = place[label]
    return table

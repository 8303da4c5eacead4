"""The labels that people gave, as the checks read them: one row an annotation."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Item, Pick


@dataclass(frozen=True)
class Label:
    """What one person said of one encoded item. ``is_random``: the item was drawn uniformly from the pool."""

    annotation_id: int
    item_id: int
    content_hash: str
    label: str
    annotator: str
    at: dt.datetime
    is_holdout: bool = False
    is_random: bool = False


def read(session: Session, project_id: int) -> list[Label]:
    """Every label that stands, in the order in which they were given; those that the configuration lost too."""
    drawn = (
        sa.select(Pick.item_id)
        .join(Batch, Batch.id == Pick.batch_id)
        .where(Batch.project_id == project_id, Pick.is_random_slice)
    )
    rows = session.execute(
        sa.select(
            Annotation.external_id,
            Annotation.item_id,
            Item.content_hash,
            Annotation.label,
            Annotation.annotator,
            Annotation.created_at,
            Item.is_holdout,
            Item.id.in_(drawn),
        )
        .join(Item, Item.id == Annotation.item_id)
        .where(
            Annotation.project_id == project_id,
            Annotation.deleted_at.is_(None),
            Annotation.label.is_not(None),
            Item.state == "encoded",
        )
        .order_by(Annotation.created_at, Annotation.external_id)
    )
    return [
        Label(id_, item, hash_ or "", label or "", annotator or "?", at, is_holdout, bool(is_random))
        for id_, item, hash_, label, annotator, at, is_holdout, is_random in rows
    ]


def by_item(labels: Iterable[Label]) -> dict[int, list[Label]]:
    """Labels of each item, in the order given; items by their first label."""
    found: dict[int, list[Label]] = defaultdict(list)
    for label in labels:
        found[label.item_id].append(label)
    return dict(found)

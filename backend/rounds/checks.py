"""A batch of labels to check: items whose label the model confidently contradicts, published like any other."""

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa

from backend.database import Item, reading
from backend.errors import NothingToLookFor
from backend.learning.committee import held_out
from backend.learning.heads import Head
from backend.learning.quality import Suspect, suspects
from backend.pool.catalog import Labelled
from backend.rounds.encoding import Embeddings
from strategies import Task

STRATEGY = "check_labels"
FEWEST = 20


def find_suspects(
    known: Sequence[Labelled], head: Head | None, embeddings: Embeddings, penalty: float, seed: int
) -> list[tuple[Labelled, Suspect]]:
    """Labelled items that are probably labelled wrong, the least believed label first.

    Items that are trained on are judged by heads that were not fitted to them, the holdout by the champion's head,
    which never is. Raises NothingToLookFor without a model, or below 20 labels.
    """
    if head is None:
        raise NothingToLookFor(problem="there is no model yet, which could contradict a label")
    if head.task != Task.CLASSIFICATION:
        raise NothingToLookFor(problem="labels are checked where an item has exactly one class")
    usable = [row for row in known if row.label in head.classes]
    is_there = embeddings.store.locate([row.content_hash for row in usable]) >= 0
    usable = [row for row, there in zip(usable, is_there, strict=True) if there]
    train = [row for row in usable if not row.is_holdout]
    holdout = [row for row in usable if row.is_holdout]
    if len(train) < FEWEST:
        raise NothingToLookFor(problem=f"there are {len(train)} labels to judge, and it takes {FEWEST}")
    ordered = train + holdout
    labels = np.array([head.classes.index(row.label) for row in ordered], dtype=np.int64)
    x = embeddings.gather([row.content_hash for row in train])
    said = [held_out(head, x, labels[: len(train)], penalty, seed)]
    if holdout:
        said.append(head.predict(embeddings.gather([row.content_hash for row in holdout])))
    return [(ordered[one.row], one) for one in suspects(np.concatenate(said), labels)]


def with_tasks(found: Sequence[tuple[Labelled, Suspect]]) -> list[tuple[Labelled, Suspect]]:
    """Those that Label Studio still has a task of."""
    ids = [row.item_id for row, _ in found]
    with reading() as session:
        there = set(session.scalars(sa.select(Item.id).where(Item.id.in_(ids), Item.task_id.is_not(None))))
    return [one for one in found if one[0].item_id in there]


def reason(one: Suspect, head: Head) -> str:
    """What is shown to people beside the item."""
    return (
        f"labelled {head.classes[one.given]!r}; a model that has not seen this label says {head.classes[one.said]!r} "
        f"({one.said_probability:.0%}; the label {one.self_confidence:.0%})"
    )

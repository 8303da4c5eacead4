"""Two model versions on the same labels: which one is better, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.learning import registry
from backend.learning.contrast import Contrast, contrast
from backend.pool.catalog import Labelled, labelled
from backend.scoring.vectors import VectorStore
from backend.settings import settings

FEWEST_TO_COMPARE = 10  # unseen labels below which two heads cannot be told apart


@dataclass(frozen=True, eq=False)
class Answers:
    """What two versions say of the same holdout: probabilities (n, K) of each, labels (n,) among the K `classes`."""

    holdout: list[Labelled]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    new: NDArray[np.float32]
    current: NDArray[np.float32]


def compare(session: Session, new: ModelVersion, current: ModelVersion) -> Contrast | None:
    """`new` against `current`, as `answers` has them. None below 10 labels. Raises HeadUnreadable."""
    return contrast_of(answers(session, new, current))


def contrast_of(found: Answers) -> Contrast | None:
    """Measure by measure, or None below 10 labels."""
    if len(found.holdout) < FEWEST_TO_COMPARE:
        return None
    return contrast(found.new, found.current, found.labels, found.classes)


def answers(session: Session, new: ModelVersion, current: ModelVersion) -> Answers:
    """Both versions on the holdout as it is labelled now; neither was fitted to any of it.

    Every version is asked with its own encoder's embeddings; items that one of them has no embedding of are left
    out, as are labels that neither knows. Raises HeadUnreadable.
    """
    heads = registry.load_head(new), registry.load_head(current)
    classes = tuple(dict.fromkeys(heads[0].classes + heads[1].classes))
    holdout = [row for row in labelled(session, new.project_id) if row.is_holdout and row.label in classes]
    stores = [
        vectors(version.encoder_digest, head.features) for version, head in zip((new, current), heads, strict=True)
    ]
    hashes = [row.content_hash for row in holdout]
    known = np.all([store.locate(hashes) >= 0 for store in stores], axis=0)
    holdout = [row for row, is_known in zip(holdout, known, strict=True) if is_known]
    said = [
        _spread(head.predict(_rows(store, holdout)), head.classes, classes)
        for head, store in zip(heads, stores, strict=True)
    ]
    labels = np.array([classes.index(row.label) for row in holdout], dtype=np.int64)
    return Answers(holdout, classes, labels, said[0], said[1])


def vectors(encoder_digest: str, dims: int) -> VectorStore:
    """The embeddings that an encoder made; the encoder itself need not be there any more."""
    return VectorStore(settings().home / "vectors", encoder_digest, dims)


def _rows(store: VectorStore, rows: list[Labelled]) -> NDArray[Any]:
    return store.gather([row.content_hash for row in rows])


def _spread(probabilities: NDArray[np.float32], own: tuple[str, ...], every: tuple[str, ...]) -> NDArray[np.float32]:
    """Probabilities (n, k) of one head's classes among all classes, (n, K)."""
    spread = np.zeros((len(probabilities), len(every)), np.float32)
    spread[:, [every.index(name) for name in own]] = probabilities
    return spread

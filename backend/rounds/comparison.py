"""Two model versions on the same labels: which one is better, and how sure that is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.learning import registry
from backend.learning.contrast import Contrast, contrast
from backend.pool.catalog import Labelled, labelled
from backend.rounds.learn import FEWEST_TO_COMPARE
from backend.scoring.vectors import VectorStore
from backend.settings import settings


def compare(session: Session, new: ModelVersion, current: ModelVersion) -> Contrast | None:
    """`new` against `current` on the holdout as it is labelled now; neither was fitted to any of it.

    Every version is asked with its own encoder's embeddings; items that one of them has no embedding of are left
    out, as are labels that neither knows. None below 10 labels. Raises HeadUnreadable.
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
    if len(holdout) < FEWEST_TO_COMPARE:
        return None
    answers = [
        _spread(head.predict(_rows(store, holdout)), head.classes, classes)
        for head, store in zip(heads, stores, strict=True)
    ]
    labels = np.array([classes.index(row.label) for row in holdout], dtype=np.int64)
    return contrast(answers[0], answers[1], labels, classes)


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

"""Two model versions on the same labels: which one is better, and how sure that is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.learning import registry
from backend.learning.contrast import Contrast, NumberContrast, contrast, contrast_numbers, contrast_sets
from backend.learning.set_evaluate import membership
from backend.pool.catalog import Labelled, labelled
from backend.questions import Question, question
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from strategies import Task

AnyContrast = Contrast | NumberContrast

FEWEST_TO_COMPARE = 10  # unseen labels below which two heads cannot be told apart


@dataclass(frozen=True, eq=False)
class Answers:
    """What two versions say of the same holdout: probabilities (n, K) of each for the choices of `question`, the labels
    that each tells, and how sure it is of them. Of numbers the columns are those of `learning.number_heads`.
    """

    holdout: list[Labelled]
    question: Question
    new: NDArray[np.float32]
    current: NDArray[np.float32]
    labels: tuple[list[str], list[str]]
    sure: tuple[list[float], list[float]]


def compare(session: Session, new: ModelVersion, current: ModelVersion) -> AnyContrast | None:
    """`new` against `current`, as `answers` has them. None below 10 labels. Raises HeadUnreadable."""
    return contrast_of(answers(session, new, current))


def contrast_of(found: Answers) -> AnyContrast | None:
    """Measure by measure, or None below 10 labels."""
    return None if len(found.holdout) < FEWEST_TO_COMPARE else _CONTRASTS[found.question.task](found)


def _of_classes(found: Answers) -> Contrast:
    classes = found.question.choices
    labels = np.array([classes.index(row.label) for row in found.holdout], dtype=np.int64)
    return contrast(found.new, found.current, labels, classes)


def _of_sets(found: Answers) -> Contrast:
    def members(labels: Iterable[str]) -> NDArray[np.bool_]:
        return membership([found.question.names(label) for label in labels], found.question.choices)

    told = members(found.labels[0]), members(found.labels[1])
    truth = members(row.label for row in found.holdout)
    return contrast_sets(found.new, found.current, told, truth, found.question.choices)


def _of_numbers(found: Answers) -> NumberContrast:
    return contrast_numbers(found.new, found.current, np.array([float(row.label) for row in found.holdout]))


_CONTRASTS: dict[Task, Callable[[Answers], AnyContrast]] = {
    Task.CLASSIFICATION: _of_classes,
    Task.MULTI_LABEL: _of_sets,
    Task.REGRESSION: _of_numbers,
}


def answers(session: Session, new: ModelVersion, current: ModelVersion) -> Answers:
    """Both versions on the holdout as it is labelled now; neither was fitted to any of it.

    Every version is asked with its own encoder's embeddings; items that one of them has no embedding of are left
    out, as are labels that neither knows; nothing is left where they answer different kinds of questions. Raises
    HeadUnreadable.
    """
    heads = registry.load_head(new), registry.load_head(current)
    classes = tuple(dict.fromkeys(heads[0].classes + heads[1].classes))
    asked, is_like = question(heads[0].task, classes), heads[0].task == heads[1].task
    holdout = [
        row for row in labelled(session, new.project_id, asked) if row.is_holdout and asked.knows(row.label) and is_like
    ]
    stores = [
        vectors(version.encoder_digest, head.features) for version, head in zip((new, current), heads, strict=True)
    ]
    hashes = [row.content_hash for row in holdout]
    known = np.all([store.locate(hashes) >= 0 for store in stores], axis=0)
    holdout = [row for row, is_known in zip(holdout, known, strict=True) if is_known]
    said = [head.predict(_rows(store, holdout)) for head, store in zip(heads, stores, strict=True)]
    labels = [[head.label_of(one) for one in rows] for head, rows in zip(heads, said, strict=True)]
    sure = [[head.confidence(one) for one in rows] for head, rows in zip(heads, said, strict=True)]
    spread = [_spread(rows, head.classes, classes) for head, rows in zip(heads, said, strict=True)]
    return Answers(holdout, asked, spread[0], spread[1], (labels[0], labels[1]), (sure[0], sure[1]))


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

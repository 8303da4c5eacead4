"""Whether a faster form of an encoder gives what the exact one gives: the check that int8 has to pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning import training
from backend.learning.candidates import Method
from backend.learning.evaluate import Interval, compare

MOST_LOST = 0.003
"""Accuracy of a linear probe that may be lost."""
LEAST_OVERLAP = 0.95
"""Share of the least confident items that must be the same ones."""
DOUBTED, OF = 500, 5_000
"""The overlap is that of the least confident 500 of 5,000 items, and of a tenth where there are fewer."""
PROBES = 5
FEWEST_LABELS = 334  # of fewer, one item alone is more than 0.3 points


@dataclass(frozen=True)
class Fidelity:
    """The fast form beside the exact one.

    ``accuracy`` and ``exact_accuracy``, in [0, 1], are those of linear probes on ``labels`` labelled items that they
    did not see (each form its own probe, the same folds); ``interval`` is the 95 % one of their difference. ``overlap``
    is the share of the ``doubted`` least confident of ``items`` items that are the same; ``mean_cosine`` and
    ``least_cosine`` are between the two embeddings of an item.
    """

    items: int
    labels: int
    exact_accuracy: float
    accuracy: float
    interval: Interval
    doubted: int
    overlap: float
    mean_cosine: float
    least_cosine: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the fast form must not stand in for the exact one; none where it may."""
        found = []
        if self.accuracy - self.exact_accuracy < -MOST_LOST - 1e-9:
            found.append(
                f"a linear probe changes by {100 * (self.accuracy - self.exact_accuracy):+.2f} points on {self.labels} "
                f"labels (95 %: {100 * self.interval.low:+.2f} to {100 * self.interval.high:+.2f}), and may lose "
                f"{100 * MOST_LOST:.1f}"
            )
        if self.overlap < LEAST_OVERLAP:
            found.append(
                f"{self.overlap:.1%} of the {self.doubted} least confident of {self.items} items are the same, and "
                f"{LEAST_OVERLAP:.0%} are asked for"
            )
        return tuple(found)


def measure(
    exact: NDArray[Any],
    fast: NDArray[Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    familiar: NDArray[np.bool_],
    seed: int,
) -> Fidelity:
    """Compare embeddings (n, d) of the same items by two forms of one encoder.

    ``labels`` (n,) are class indices, -1 where an item has none. The encoder was trained on the labels of the
    ``familiar`` items (n,), which are never held out. Each labelled item is judged by the one of five probes that did
    not see it, every other one by the probe of all labels: twelve fits. Raises UnusableTrainingData.
    """
    folds = _folds(labels, familiar, seed)
    one, other = (_probabilities(form, labels, classes, familiar, folds, seed) for form in (exact, fast))
    judged = folds >= 0
    compared = compare(other[judged], one[judged], labels[judged])
    right = [float((said[judged].argmax(axis=1) == labels[judged]).mean()) for said in (one, other)]
    doubted = max(1, min(DOUBTED, len(exact) * DOUBTED // OF))
    cosines = _cosines(exact, fast)
    return Fidelity(
        items=len(exact),
        labels=int(judged.sum()),
        exact_accuracy=right[0],
        accuracy=right[1],
        interval=compared.interval,
        doubted=doubted,
        overlap=len(_least_confident(one, doubted) & _least_confident(other, doubted)) / doubted,
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
    )


def _folds(labels: NDArray[np.int64], familiar: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Which probe is to judge each item (n,), each class dealt over all of them; -1: it is not held out."""
    folds = np.full(len(labels), -1, np.int64)
    eligible = np.flatnonzero((labels >= 0) & ~familiar)
    shuffled = np.random.default_rng(seed).permutation(eligible)
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds[dealt] = np.arange(len(dealt)) % PROBES
    return folds


def _probabilities(
    embeddings: NDArray[Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    familiar: NDArray[np.bool_],
    folds: NDArray[np.int64],
    seed: int,
) -> NDArray[np.float32]:
    """What the probes say of all items, (n, K)."""

    def say(seen: NDArray[np.bool_], of: NDArray[np.bool_]) -> NDArray[np.float32]:
        methods: frozenset[Method] = frozenset({"logistic"})
        fitted = training.fit(
            embeddings[seen], labels[seen], classes, seed=seed, methods=methods, familiar=familiar[seen]
        )
        return np.asarray(fitted.head.predict(embeddings[of]))

    has_label = labels >= 0
    said = np.zeros((len(embeddings), len(classes)), np.float32)
    if (folds < 0).any():
        said[folds < 0] = say(has_label, folds < 0)
    for fold in range(PROBES):
        said[folds == fold] = say(has_label & (folds != fold), folds == fold)
    return said


def _least_confident(said: NDArray[np.float32], count: int) -> set[int]:
    return set(np.argsort(said.max(axis=1), kind="stable")[:count].tolist())


def _cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    first, second = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float64] = (first * second).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return cosines

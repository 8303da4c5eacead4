"""Who is held out when: stratified folds over few, uneven labels."""

import numpy as np
from numpy.typing import NDArray

MIN_ELIGIBLE = 30  # with 20 labels of CIFAR-10, folds chose a penalty that halved the accuracy


def assign_folds(
    labels: NDArray[np.int64], generator: np.random.Generator, familiar: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], int]:
    """The fold of each label, (l,), and how many folds there are; -1 is never held out.

    Each class is dealt over the folds in turn, so no fold has more than one of a class above another. A class
    with a single label stays in every training part: held out, nobody could know it. Five folds below 500
    labels, three below 2,000, then one part in five is held out once: with that many, one measure is enough.
    No folds when fewer than 30 labels could be held out or only one class could. The `familiar` (l,) are not held
    out either: the encoder was trained on these labels, and a head would look better on them than it is.
    """
    counts = np.bincount(labels)
    is_new = np.ones(len(labels), bool) if familiar is None else ~familiar
    eligible = np.flatnonzero((counts[labels] >= 2) & is_new)
    fold = np.full(len(labels), -1, np.int64)
    if len(eligible) < MIN_ELIGIBLE or len(np.unique(labels[eligible])) < 2:
        return fold, 0
    parts, used = (5, 5) if len(labels) < 500 else (3, 3) if len(labels) < 2_000 else (5, 1)
    shuffled = eligible[generator.permutation(len(eligible))]
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold[dealt] = np.arange(len(dealt)) % parts
    fold[fold >= used] = -1
    return fold, used


def deal(labels: NDArray[np.int64], parts: int, seed: int) -> NDArray[np.int64]:
    """The part of each label, (l,), from 0: all are dealt, those of a class over the parts in turn."""
    order = np.random.default_rng(seed).permutation(len(labels))
    part = np.empty(len(labels), np.int64)
    part[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % parts
    return part

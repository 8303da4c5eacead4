"""Labels that a model which has not seen them confidently contradicts: whom to ask again."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, t

from backend.learning.slices import FALSE_DISCOVERIES

_SLACK = 1e-6


@dataclass(frozen=True)
class Suspect:
    """A labelled item, by its row: what the model says instead, and how probable it finds that and the given label."""

    row: int
    given: int
    said: int
    self_confidence: float
    said_probability: float


@dataclass(frozen=True)
class SetSuspect:
    """An item with a set, by its row, and which labels of it are in doubt: ``missing`` ones and ``surplus`` ones, by
    their columns, each with how probable the model finds it that the item has it. ``self_confidence`` is that of the
    least believed yes or no.
    """

    row: int
    missing: tuple[tuple[int, float], ...]
    surplus: tuple[tuple[int, float], ...]
    self_confidence: float


@dataclass(frozen=True)
class NumberSuspect:
    """An item with a number, by its row: what the model says instead, and its deviation, as wide as the errors are.

    ``p`` is the chance of a label so far off, corrected for the number of labels.
    """

    row: int
    given: float
    said: float
    deviation: float
    p: float


def suspects(probabilities: NDArray[Any], labels: NDArray[np.integer[Any]]) -> list[Suspect]:
    """The items whose label is probably wrong, the least believed label first. O(n · K).

    probabilities: (n, K) by models that were not fitted to the item; labels: (n,) class indices. A class is confidently
    said where it is at least as probable as it is, on average, for the items labelled with it; an item is suspected
    where a class that is not its label is said so, and is the most probable. There is no threshold to set.

    Northcutt, Jiang & Chuang, *Confident learning: estimating uncertainty in dataset labels*, JAIR 2021 (the confident
    joint, ranked by self-confidence).
    """
    n, k = probabilities.shape
    p = np.asarray(probabilities, np.float64)
    own = p[np.arange(n), labels]
    counts = np.bincount(labels, minlength=k)
    thresholds = np.where(counts > 0, np.bincount(labels, weights=own, minlength=k) / np.maximum(counts, 1), np.inf)
    is_confident = p >= thresholds - _SLACK
    best = p.argmax(axis=1)
    said = np.where(is_confident.sum(axis=1) > 1, best, is_confident.argmax(axis=1))
    wrong = is_confident.any(axis=1) & (said != labels) & (best != labels)
    rows = np.flatnonzero(wrong)
    order = rows[np.argsort(own[rows], kind="stable")]
    return [Suspect(int(at), int(labels[at]), int(said[at]), float(own[at]), float(p[at, said[at]])) for at in order]


def set_suspects(probabilities: NDArray[Any], truth: NDArray[np.bool_]) -> list[SetSuspect]:
    """The items with a label that is probably wrong or missing, the least believed first. O(n · K).

    probabilities: (n, K), each label's own, by models that were not fitted to the item; truth: (n, K). Every label's
    yes and no are two classes, judged as `suspects` judges them.

    Thyagarajan, Snorrason, Northcutt & Mueller, *Identifying incorrect annotations in multi-label classification data*,
    ICLR 2023 workshops (label by label).
    """
    missing: dict[int, list[tuple[int, float]]] = defaultdict(list)
    surplus: dict[int, list[tuple[int, float]]] = defaultdict(list)
    belief: dict[int, float] = {}
    for label in range(truth.shape[1]):
        chances = np.asarray(probabilities[:, label], np.float64)
        for one in suspects(np.stack([1 - chances, chances], axis=1), truth[:, label].astype(np.int64)):
            (missing if one.said else surplus)[one.row].append((label, float(chances[one.row])))
            belief[one.row] = min(belief.get(one.row, 1.0), one.self_confidence)
    return [
        SetSuspect(row, tuple(missing[row]), tuple(surplus[row]), belief[row])
        for row in sorted(belief, key=lambda row: (belief[row], row))
    ]


def number_suspects(said: NDArray[Any], truth: NDArray[np.float64]) -> list[NumberSuspect]:
    """The labels that are farther off than chance explains, the least probable first. O(n log n).

    said: numbers and deviations (n, 2) by models that were not fitted to the item; truth: (n,), n ≥ 3. An error beside
    its deviation is compared with all the others, by Student's t, so deviations that claim too much or too little do no
    harm, and no label hides itself. Of the labels that are told one in twenty is right, on average, where errors are
    normal; of heavier tails the farthest are told as well.

    Cook & Weisberg, *Residuals and influence in regression*, 1982 (the outlier test); Benjamini & Hochberg, JRSS B
    1995.
    """
    gaps = (truth - said[:, 0].astype(np.float64)) / np.maximum(said[:, 1].astype(np.float64), 1e-12)
    squares, others = np.square(gaps), len(gaps) - 1
    width = np.sqrt(np.maximum(squares.sum() - squares, 1e-24) / others)
    adjusted = false_discovery_control(2 * t.sf(np.abs(gaps) / width, others))
    rows = np.flatnonzero(adjusted <= FALSE_DISCOVERIES)
    order = rows[np.argsort(-np.abs(gaps[rows]), kind="stable")]
    return [
        NumberSuspect(
            int(at), float(truth[at]), float(said[at, 0]), float(said[at, 1] * width[at]), float(adjusted[at])
        )
        for at in order
    ]

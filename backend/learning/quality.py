"""Labels that a model which has not seen them confidently contradicts: whom to ask again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SLACK = 1e-6


@dataclass(frozen=True)
class Suspect:
    """A labelled item, by its row: what the model says instead, and how probable it finds that and the given label."""

    row: int
    given: int
    said: int
    self_confidence: float
    said_probability: float


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

"""How far two people agree beyond chance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two annotators on ``items`` that both labelled, with its 95 % interval, in [-1, 1]."""

    items: int
    kappa: float
    low: float
    high: float


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """Agreement beyond chance on the same items, in the same order; 1 where both always give one and the same label.

    The interval is the delta method's for large samples; below some twenty items it is a rough guide.

    Cohen, *A coefficient of agreement for nominal scales*, EPM 1960; Fleiss, Cohen & Everitt, *Large sample standard
    errors of kappa and weighted kappa*, Psychological Bulletin 1969. Raises ValueError without items. O(n + K²).
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} labels are no pairs")
    names = sorted(set(first) | set(second))
    place = {name: at for at, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for (one, other), count in Counter(zip(first, second, strict=True)).items():
        table[place[one], place[other]] = count
    p = table / table.sum()
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, chance = float(p.trace()), float(rows @ columns)
    if chance == 1.0:
        return Agreement(len(first), 1.0, 1.0, 1.0)
    kappa = (observed - chance) / (1 - chance)
    diagonal = p.diagonal() @ (1 - (rows + columns) * (1 - kappa)) ** 2
    off = (p * (columns[:, None] + rows[None, :]) ** 2).sum() - p.diagonal() @ (rows + columns) ** 2
    variance = diagonal + (1 - kappa) ** 2 * off - (kappa - chance * (1 - kappa)) ** 2
    half = 1.96 * float(np.sqrt(max(variance, 0.0) / len(first))) / (1 - chance)
    return Agreement(len(first), kappa, max(-1.0, kappa - half), min(1.0, kappa + half))

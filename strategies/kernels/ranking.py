"""Ranking by doubt and by unlikeness to what is labelled and ranked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.nearness import Nearness

_STALE = 64
"""Old scores that are computed anew together at first; four times as many each time that was not enough."""


def ranked_batch(
    points: NDArray[Any], labelled: NDArray[Any], doubt: NDArray[np.float64], picks: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rank ``α · (1 - likeness) + (1 - α) · doubt``, the likeness 1 / (1 + distance) to the nearest labelled or ranked
    row, and α the share of rows (n, d) that are neither. doubt (n,), picks ≤ n → rows in order and their scores.

    A likeness only grows, so an old score bounds the new one from above, and only rows that could win are computed
    anew: in float64, compared as float32, ties to the lower row. The picks are those of the plain algorithm.
    """
    nearness = Nearness(points, labelled, picks)
    nearness.refresh()
    unlike = _unlike(nearness.least.numpy())
    left, known, renewed = len(points), len(labelled), 0
    order, scores = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    for pick in range(picks):
        share = left / (left + known)
        bounds = (share * unlike + (1 - share) * doubt).astype(np.float32)
        best, some = int(bounds.argmax()), _STALE
        while nearness.seen[best] < nearness.count:
            top = np.union1d(np.argpartition(-bounds, min(some, len(bounds) - 1))[:some], best)
            stale = top[(nearness.seen[top] < nearness.count) & np.isfinite(unlike[top])]
            unlike[stale] = _unlike(nearness.update(stale))
            bounds[stale] = share * unlike[stale] + (1 - share) * doubt[stale]
            best, some, renewed = int(bounds.argmax()), 4 * some, renewed + len(stale)
        order[pick], scores[pick] = best, bounds[best]
        nearness.add(best)
        unlike[best] = -np.inf
        left, known = left - 1, known + 1
        if renewed > len(points):
            nearness.refresh()
            unlike, renewed = np.where(unlike == -np.inf, -np.inf, _unlike(nearness.least.numpy())), 0
    return order, scores


def _unlike(squared: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - 1 / (1 + distance); 1 at infinity."""
    return 1 - 1 / (1 + np.sqrt(squared.astype(np.float64)))

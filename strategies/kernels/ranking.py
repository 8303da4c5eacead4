"""Ranking by doubt and by unlikeness to what is labelled and ranked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.nearness import Nearness

_STALE, _SHORTLIST = 64, 8192
"""Old scores that are computed anew together, and rows that are followed pick by pick, eight times as many where a row
outside might be as good."""


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
    last = (left - picks) / max(1, left + known)
    order, scores = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    outside = np.inf
    for pick in range(picks):
        share = left / (left + known)
        best, score, some = -1, -np.inf, _SHORTLIST
        while score <= outside:  # a row outside may be as good
            if best >= 0 or not len(rows):
                rows, outside = _shortlist(unlike, doubt, share, last, some)
                some *= 8
            while True:
                bounds = (share * unlike[rows] + (1 - share) * doubt[rows]).astype(np.float32)
                at = int(bounds.argmax())
                best, score = int(rows[at]), float(bounds[at])
                if nearness.seen[best] == nearness.count or not np.isfinite(score):
                    break
                top = rows[np.union1d(np.argpartition(-bounds, min(_STALE, len(rows) - 1))[:_STALE], at)]
                stale = top[(nearness.seen[top] < nearness.count) & np.isfinite(unlike[top])]
                unlike[stale] = _unlike(nearness.update(stale))
                renewed += len(stale)
        order[pick], scores[pick] = best, score
        nearness.add(best)
        unlike[best] = -np.inf
        left, known = left - 1, known + 1
        if renewed > len(points):
            nearness.refresh()
            unlike, renewed = np.where(unlike == -np.inf, -np.inf, _unlike(nearness.least.numpy())), 0
            rows = rows[:0]
    return order, scores


def _shortlist(
    unlike: NDArray[np.float64], doubt: NDArray[np.float64], share: float, last: float, size: int
) -> tuple[NDArray[np.int64], float]:
    """The `size` rows, ascending, that may have the highest scores while the share falls from `share` to `last`, and
    what no other row can exceed. A score is linear in the share, so it is highest at one of the two."""
    if size >= len(unlike):
        return np.arange(len(unlike)), -np.inf
    ranked = np.isneginf(unlike)
    apart = np.where(ranked, 0, unlike)
    most = np.maximum(share * apart + (1 - share) * doubt, last * apart + (1 - last) * doubt)
    most[ranked] = -np.inf
    split = np.argpartition(-most, size)
    return np.sort(split[:size]), float(most[split[size]].astype(np.float32)) + 1e-6


def _unlike(squared: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - 1 / (1 + distance); 1 at infinity."""
    return 1 - 1 / (1 + np.sqrt(squared.astype(np.float64)))

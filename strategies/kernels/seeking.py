"""Looking for the like of given points."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.herding import cosine
from strategies.kernels.projection import Projection

_STALE = 64
"""Old gains that are computed anew together at first; four times as many each time that was not enough."""


def seek(
    points: NDArray[Any], project: Projection, targets: torch.Tensor, picks: int, relevance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Greedily maximise Σ over targets of the likeness to the nearest pick + relevance · Σ over picks of the likeness
    to the nearest target, likeness (1 + cosine) / 2.

    points (n, d), targets (t, k) unit vectors already, picks ≤ n → rows in order, the gain of each, and each row's
    likeness to its nearest target (n,). Lazy greedy (Minoux, 1978): the picks are those of plain greedy, ties go to the
    lower row. Holds two numbers a row; looks at the pool two or three times, at n k t each.
    """
    n, d = points.shape
    nearest, bounds = np.zeros(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    covered = torch.zeros(len(targets), dtype=torch.float64)

    def gains(rows: Any, size: int) -> NDArray[np.float32]:
        result = np.empty(size, dtype=np.float32)
        for part in blocks(size, 8 * d + 32 * max(1, len(targets))):
            some = slice(part.start, part.stop) if rows is None else rows[part]
            likeness = cosine(project(points[some]), targets).double()
            if len(targets):
                nearest[some] = likeness.amax(dim=1).numpy()
            added = (likeness - covered).clamp_min_(0).sum(dim=1).numpy()
            result[part] = added + relevance * nearest[some]
        return result

    bounds[:] = gains(None, n)
    fresh = np.ones(n, dtype=bool)
    order, said = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    for pick in range(picks):
        best, some = int(bounds.argmax()), _STALE
        while not fresh[best]:
            top = np.argpartition(-bounds, min(some, n - 1))[:some]
            stale = np.union1d(top[~fresh[top] & np.isfinite(bounds[top])], best)
            bounds[stale] = gains(stale, len(stale))
            fresh[stale] = True
            best, some = int(bounds.argmax()), 4 * some
        order[pick], said[pick] = best, bounds[best]
        likeness = cosine(project(points[best : best + 1]), targets)[0].double()
        covered = torch.maximum(covered, likeness)
        bounds[best] = -np.inf
        fresh[:] = False
    return order, said, nearest

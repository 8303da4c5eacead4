"""Looking for the like of given points."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import as_tensor

_SHORTLIST = 4_096
_BLOCK_BYTES = 8 << 20


def seek(
    points: NDArray[Any], mean: torch.Tensor, targets: NDArray[Any], picks: int, relevance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Greedily maximise Σ over targets of the likeness to the nearest pick + relevance · Σ over picks of the likeness
    to the nearest target, likeness (1 + cosine) / 2 from `mean`.

    points (n, d), mean (d,), targets (t, d), picks ≤ n → rows in order, the gain of each, and each row's likeness to
    its nearest target (n,). Reads the points once, n d t, and holds n t likenesses. Lazy greedy (Minoux, 1978): gains
    only fall, so the highest few thousand are followed pick by pick, and others are computed anew only when they could
    be higher. The picks are those of plain greedy, ties go to the lower row.
    """
    n = len(points)
    likeness = _likeness(points, mean, targets)
    nearest = likeness.amax(dim=1) if len(targets) else torch.zeros(n)
    covered = torch.zeros(len(targets), dtype=torch.float64)
    gains = _gains(likeness, nearest, covered, relevance)
    order, said = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    done = 0
    while done < picks:
        rows, outside = _highest(gains, max(_SHORTLIST, 2 * (picks - done)))
        index = torch.from_numpy(rows)
        near, top, mine = likeness[index], nearest[index], gains[rows]
        while done < picks and mine[best := int(mine.argmax())] > outside:
            order[done], said[done] = rows[best], mine[best]
            done += 1
            raised = torch.maximum(covered, near[best].double())
            if bool((raised > covered).any()):
                taken, covered = np.isneginf(mine), raised
                mine = _gains(near, top, covered, relevance)
                mine[taken] = -np.inf
            mine[best] = -np.inf
        gains[rows] = mine
        stale = np.flatnonzero(gains >= mine.max())  # what was below that before is below it now
        index = torch.from_numpy(stale)
        gains[stale] = _gains(likeness[index], nearest[index], covered, relevance)
        gains[order[:done]] = -np.inf
    return order, said, nearest.numpy()


def _likeness(points: NDArray[Any], mean: torch.Tensor, targets: NDArray[Any]) -> torch.Tensor:
    """(n, t) float32; a point or a target that is the mean itself is half like anything."""
    n, d = points.shape
    ways = torch.nn.functional.normalize(as_tensor(targets).reshape(-1, d) - mean, dim=1).T.contiguous()
    likeness = torch.empty((n, ways.shape[1]))
    for rows in blocks(n, 8 * d, _BLOCK_BYTES):
        block = as_tensor(points[rows]).sub_(mean)
        lengths = torch.linalg.vector_norm(block, dim=1, keepdim=True).clamp_min_(1e-30)
        likeness[rows] = (block @ ways).div_(lengths).clamp_(-1, 1).add_(1).mul_(0.5)
    return likeness


def _gains(
    likeness: torch.Tensor, nearest: torch.Tensor, covered: torch.Tensor, relevance: float
) -> NDArray[np.float32]:
    """What each row would add, (n,), summed in float64."""
    gains = np.empty(len(likeness), dtype=np.float32)
    for rows in blocks(len(likeness), 16 * max(1, likeness.shape[1]), _BLOCK_BYTES):
        added = (likeness[rows] - covered).clamp_min_(0).sum(dim=1)
        gains[rows] = added.add_(nearest[rows], alpha=relevance).numpy()
    return gains


def _highest(gains: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], float]:
    """Rows in order with at least the count-th highest gain, and the highest of the others."""
    if count >= len(gains):
        return np.arange(len(gains)), -np.inf
    bar = np.partition(gains, len(gains) - count)[len(gains) - count]
    is_high = gains >= bar
    return np.flatnonzero(is_high), float(gains[~is_high].max(initial=-np.inf))

"""Greedy maximisation of a kernel's coverage."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks

_STALE = 64
"""Old gains that are computed anew together at first; four times as many each time that was not enough."""


Likeness = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Points (n, d) and targets (t, d) to (n, t) float32 from zero to one."""


def max_herding(
    candidates: torch.Tensor,
    targets: torch.Tensor,
    covering: torch.Tensor,
    picks: int,
    width: float,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`coverage` where likeness is exp(-‖x-s‖²/width²)."""
    return coverage(candidates, targets, covering, picks, lambda some, aims: rbf(some, aims, width), weights)


def coverage(
    candidates: torch.Tensor,
    targets: torch.Tensor,
    covering: torch.Tensor,
    picks: int,
    likeness: Likeness,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Greedily maximise mean over targets x of weight(x) · max over s in (covering ∪ picks) of likeness(s, x).

    candidates (n, d), targets (t, d), covering (l, d) float32, weights (t,) from zero up (one without), picks ≤ n →
    rows in order and the gain of each. Lazy greedy (Minoux, 1978): the objective is submodular, so an old gain bounds
    the new one from above, and only gains that could win are computed anew. The picks are those of plain greedy; ties
    go to the lower row. Holds the kernel, n × t in float32: 160 MB for 20,000 candidates and 2,000 targets.
    """
    weight = torch.ones(len(targets)) if weights is None else torch.from_numpy(weights)
    covered = torch.zeros(len(targets), dtype=torch.float64)  # as the sums are: mixed dtypes are 30 × slower
    for rows in blocks(len(covering), 16 * len(targets)):
        covered = torch.maximum(covered, likeness(covering[rows], targets).mul_(weight).amax(dim=0).double())
    kernel = torch.empty((len(candidates), len(targets)))
    for rows in blocks(len(candidates), 16 * len(targets)):
        kernel[rows] = likeness(candidates[rows], targets).mul_(weight)
    bounds = _gains(kernel, np.arange(len(kernel)), covered)
    fresh = np.ones(len(candidates), dtype=bool)
    order, gains = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    for pick in range(picks):
        best, some = int(bounds.argmax()), _STALE
        while not fresh[best]:
            top = np.argpartition(-bounds, min(some, len(bounds) - 1))[:some]
            stale = np.union1d(top[~fresh[top] & np.isfinite(bounds[top])], best)
            bounds[stale] = _gains(kernel, stale, covered)
            fresh[stale] = True
            best, some = int(bounds.argmax()), 4 * some
        order[pick], gains[pick] = best, bounds[best]
        covered = torch.maximum(covered, kernel[best].double())
        bounds[best] = -np.inf
        fresh[:] = False
    return order, gains


def rbf(points: torch.Tensor, targets: torch.Tensor, width: float) -> torch.Tensor:
    """exp(-‖x-s‖²/width²) of points (n, d) and targets (t, d), as (n, t) float32; distances are float64."""
    exact, goal = points.double(), targets.double()
    squared = torch.addmm(goal.square().sum(dim=1), exact, goal.T, alpha=-2)
    squared.add_(exact.square().sum(dim=1, keepdim=True)).clamp_min_(0).div_(-(width**2))
    return squared.float().exp_()


def cosine(points: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(1 + cosine) / 2 of unit vectors (n, d) and (t, d), as (n, t) float32 in [0, 1]; products are float64."""
    return (points.double() @ targets.double().T).add_(1).div_(2).clamp_(0, 1).float()


def _gains(kernel: torch.Tensor, rows: NDArray[np.int64], covered: torch.Tensor) -> NDArray[np.float32]:
    """What each of these rows would add. Summed in float64 and rounded, so that equals tie: two items that cover but
    each other gain the same, and that is common."""
    gains = np.empty(len(rows), dtype=np.float32)
    for part in blocks(len(rows), 64 * kernel.shape[1]):
        added = kernel[torch.from_numpy(rows[part])].double().sub_(covered).clamp_min_(0)
        gains[part] = added.mean(dim=1).float().numpy()
    return gains

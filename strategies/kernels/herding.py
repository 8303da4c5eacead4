"""Greedy maximisation of a kernel's coverage."""

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks

_STALE = 64
"""Old gains that are computed anew together at first; four times as many each time that was not enough."""


def max_herding(
    candidates: torch.Tensor, targets: torch.Tensor, covering: torch.Tensor, picks: int, width: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Greedily maximise mean over targets x of max over s in (covering ∪ picks) of exp(-‖x-s‖²/width²).

    candidates (n, d), targets (t, d), covering (l, d) float32, picks ≤ n → rows in order and the gain of each.
    Lazy greedy (Minoux, 1978): the objective is submodular, so an old gain bounds the new one from above, and only
    gains that could win are computed anew. The picks are those of plain greedy; ties go to the lower row.
    Holds the kernel, n × t in float32: 160 MB for 20,000 candidates and 2,000 targets.
    """
    covered = torch.zeros(len(targets), dtype=torch.float64)  # as the sums are: mixed dtypes are 30 × slower
    for rows in blocks(len(covering), 16 * len(targets)):
        covered = torch.maximum(covered, rbf(covering[rows], targets, width).amax(dim=0).double())
    kernel = torch.empty((len(candidates), len(targets)))
    for rows in blocks(len(candidates), 16 * len(targets)):
        kernel[rows] = rbf(candidates[rows], targets, width)
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


def _gains(kernel: torch.Tensor, rows: NDArray[np.int64], covered: torch.Tensor) -> NDArray[np.float32]:
    """What each of these rows would add. Summed in float64 and rounded, so that equals tie: two items that cover but
    each other gain the same, and that is common."""
    gains = np.empty(len(rows), dtype=np.float32)
    for part in blocks(len(rows), 64 * kernel.shape[1]):
        added = kernel[torch.from_numpy(rows[part])].double().sub_(covered).clamp_min_(0)
        gains[part] = added.mean(dim=1).float().numpy()
    return gains

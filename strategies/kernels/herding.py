"""Greedy maximisation of a kernel's coverage."""

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks

_REFRESH = 64
"""Stale gains that are computed anew together: one small matrix product costs as much as one row of it."""


def max_herding(
    candidates: torch.Tensor, targets: torch.Tensor, covering: torch.Tensor, picks: int, width: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Greedily maximise mean over targets x of max over s in (covering ∪ picks) of exp(-‖x-s‖²/width²).

    candidates (n, d), targets (t, d), covering (l, d) float32, picks ≤ n → rows in order and the gain of each.
    Lazy greedy (Minoux 1978): the objective is submodular, so an old gain bounds the new one from above, and only
    gains that could win are computed anew. The picks are those of plain greedy; ties go to the lower row.
    """
    goal = targets.double()
    covered = torch.zeros(len(goal), dtype=torch.float64)
    for rows in blocks(len(covering), 16 * len(goal)):
        covered = torch.maximum(covered, rbf(covering[rows], goal, width).amax(dim=0))
    bounds = np.empty(len(candidates), dtype=np.float32)
    for rows in blocks(len(candidates), 16 * len(goal)):
        bounds[rows] = _gains(rbf(candidates[rows], goal, width), covered)
    fresh = np.ones(len(candidates), dtype=bool)
    order, gains = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    for pick in range(picks):
        best = int(bounds.argmax())
        while not fresh[best]:
            stale = np.argpartition(-bounds, min(_REFRESH, len(bounds) - 1))[:_REFRESH]
            stale = np.union1d(stale[~fresh[stale] & (bounds[stale] > -np.inf)], best)
            bounds[stale] = _gains(rbf(candidates[stale], goal, width), covered)
            fresh[stale] = True
            best = int(bounds.argmax())
        order[pick], gains[pick] = best, bounds[best]
        covered = torch.maximum(covered, rbf(candidates[best : best + 1], goal, width)[0])
        bounds[best] = -np.inf
        fresh[:] = False
    return order, gains


def rbf(points: torch.Tensor, goal: torch.Tensor, width: float) -> torch.Tensor:
    """exp(-‖x-s‖²/width²) for points (n, d) and goal (t, d) float64, as (n, t) float64."""
    exact = points.double()
    squared = torch.addmm(goal.square().sum(dim=1), exact, goal.T, alpha=-2)
    squared.add_(exact.square().sum(dim=1, keepdim=True)).clamp_min_(0)
    return squared.div_(-(width**2)).exp_()


def _gains(kernel: torch.Tensor, covered: torch.Tensor) -> NDArray[np.float32]:
    """What each row would add; float32, so that rounding in float64 cannot order equal items by their block."""
    gains: NDArray[np.float32] = (kernel - covered).clamp_min_(0).mean(dim=1).float().numpy()
    return gains

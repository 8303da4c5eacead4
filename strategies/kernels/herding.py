"""Greedy maximisation of a kernel's coverage."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks

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
    rows in order and the gain of each. A pick changes what is covered of some targets only, and only what those add
    is taken off the gains of all candidates. The picks are those of plain greedy; ties go to the lower row, and
    what is below 1e-12 of the first gain counts as nothing. Holds the kernel, n × t in float32: 160 MB for 20,000
    candidates and 2,000 targets.
    """
    weight = torch.ones(len(targets)) if weights is None else torch.from_numpy(weights)
    covered = torch.zeros(len(targets), dtype=torch.float64)  # as the sums are: mixed dtypes are 30 × slower
    for rows in blocks(len(covering), 16 * len(targets)):
        covered = torch.maximum(covered, likeness(covering[rows], targets).mul_(weight).amax(dim=0).double())
    kernel = torch.empty((len(targets), len(candidates)))
    for rows in blocks(len(targets), 16 * len(candidates)):
        kernel[rows] = likeness(targets[rows], candidates).mul_(weight[rows, None])
    total = _added(kernel, torch.arange(len(targets)), covered)
    nothing = 1e-12 * float(total.max())
    order, gains = np.empty(picks, dtype=np.int64), np.empty(picks, dtype=np.float64)
    for pick in range(picks):
        # rounded, so that equals tie: two items that cover but each other gain the same, and that is common
        gain = torch.where((total > nothing) | total.isinf(), total / len(targets), 0).float()
        best = int(gain.argmax())
        order[pick], gains[pick] = best, max(0.0, float(gain[best]))
        better = torch.maximum(covered, kernel[:, best].double())
        changed = torch.nonzero(better > covered).flatten()
        total -= _added(kernel, changed, covered, better)
        covered = better
        total[order[: pick + 1]] = -torch.inf
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


def _added(
    kernel: torch.Tensor, targets: torch.Tensor, covered: torch.Tensor, most: torch.Tensor | None = None
) -> torch.Tensor:
    """What each candidate would add to these targets' cover, counted up to `most`, summed: (n,) float64."""
    added = torch.zeros(kernel.shape[1], dtype=torch.float64)
    for part in blocks(len(targets), 24 * kernel.shape[1]):
        some = targets[part]
        likeness = kernel[some].double()
        if most is not None:
            likeness = torch.minimum(likeness, most[some, None])
        added += likeness.sub_(covered[some, None]).clamp_min_(0).sum(dim=0)
    return added

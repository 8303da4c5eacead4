"""Telling two sets of points apart by a linear classifier."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import Projection, as_tensor


def tell_apart(ones: NDArray[Any], zeros: NDArray[Any], penalty: float) -> tuple[NDArray[np.float64], float]:
    """Weights (d,) and bias of a logistic regression that tells `ones` (m, d) from `zeros` (l, d).

    Both sides weigh as much as the smaller has rows, and ``penalty / 2 · ‖w‖²`` is added. Newton's method, to its end.
    """
    m, d = ones.shape
    design = torch.ones((m + len(zeros), d + 1), dtype=torch.float64)
    design[:m, :-1], design[m:, :-1] = torch.from_numpy(ones), torch.from_numpy(zeros)
    goal = torch.cat([torch.ones(m), torch.zeros(len(zeros))]).double()
    smaller = min(m, len(zeros))
    weight = torch.where(goal > 0, smaller / m, smaller / len(zeros)).double()
    ridge = torch.full((design.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 1e-9
    solution = torch.zeros_like(ridge)

    def loss(at: torch.Tensor) -> torch.Tensor:
        margin = (design @ at) * (1 - 2 * goal)
        return (weight * torch.nn.functional.softplus(margin)).sum() + (ridge * at.square()).sum() / 2

    value = loss(solution)
    for _ in range(50):
        chance = torch.sigmoid(design @ solution)
        slope = design.T @ (weight * (chance - goal)) + ridge * solution
        curve = (design * (weight * chance * (1 - chance))[:, None]).T @ design + torch.diag(ridge)
        step = torch.linalg.solve(curve, slope)
        length = 1.0
        while length > 1e-6 and loss(solution - length * step) > value:
            length /= 2
        solution = solution - length * step
        previous, value = value, loss(solution)
        if previous - value <= 1e-10 * value.abs():
            break
    return solution[:-1].numpy(), float(solution[-1])


def projected_lengths(points: NDArray[Any], project: Projection) -> NDArray[np.float64]:
    """How long each row (n, d) is on the principal axes, before it is made a unit vector: (n,). One product."""
    lengths = np.empty(len(points))
    for rows in blocks(len(points), 8 * points.shape[1]):
        centred = as_tensor(points[rows]).sub_(project.mean)
        lengths[rows] = (centred if project.axes is None else centred @ project.axes).norm(dim=1).numpy()
    return lengths


def linear_scores(
    points: NDArray[Any], project: Projection, lengths: NDArray[np.float64], weights: NDArray[np.float64], bias: float
) -> NDArray[np.float64]:
    """``project(points) @ weights + bias``, (n,), from `projected_lengths`, rounded to float32, so that equals tie.

    Weights are turned back onto the embeddings' own axes, so a pass costs one number a number read.
    """
    own = weights if project.axes is None else project.axes.double().numpy() @ weights
    shift = float(project.mean.double().numpy() @ own)
    scores = np.empty(len(points), dtype=np.float32)
    for rows in blocks(len(points), 16 * points.shape[1]):
        along = np.asarray(points[rows], dtype=np.float64) @ own - shift
        scores[rows] = along / np.maximum(lengths[rows], 1e-30) * (lengths[rows] > 0) + bias
    return scores.astype(np.float64)

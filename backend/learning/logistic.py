"""Many multinomial logistic regressions over the same rows, solved together: folds and penalties side by side.

One matrix product serves all problems of a cross-validation, which is what makes choosing the penalty cheap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_HISTORY = 8
_WORKSPACE_BYTES = 128 * 2**20
_ARMIJO = 1e-4
_HALVINGS = 12


@dataclass(frozen=True)
class Solution:
    """Coefficients (r, P, K), biases (P, K) and objectives (P,) of P problems, and the iterations they took."""

    weights: Tensor
    bias: Tensor
    objective: Tensor
    iterations: int


def solve(
    features: Tensor,
    targets: Tensor,
    row_weights: Tensor,
    penalties: Tensor,
    tolerance: float = 1e-4,
    max_iterations: int = 150,
) -> Solution:
    """Minimise ``sum_i v_i CE(t_i, softmax(x_i W + b)) + penalty / 2 |W|^2`` for each of P problems.

    ``features`` (n, r) float32; ``targets`` (n, 1 or P, K), rows summing to 1; ``row_weights`` (n, P), each
    column summing to 1 and zero for rows that a problem does not see; ``penalties`` (P,), positive. The bias is
    not penalised. A problem ends when its gradient's largest entry is below ``tolerance`` times the first one's.
    L-BFGS with a diagonal preconditioner: fastest when the columns of ``features`` are uncorrelated.

    Liu & Nocedal, *On the limited memory BFGS method*, Mathematical Programming 1989.
    """
    n, classes = features.shape[0], targets.shape[2]
    row_bytes = 4 * classes * max(3 * n, 2 * _HISTORY * features.shape[1])
    group = max(1, min(len(penalties), _WORKSPACE_BYTES // row_bytes))
    ones = torch.cat([features, torch.ones(n, 1)], dim=1)
    parts = []
    for start in range(0, len(penalties), group):
        span = slice(start, start + group)
        shared = targets if targets.shape[1] == 1 else targets[:, span]
        objective = _Objective(ones, shared, row_weights[:, span], penalties[span])
        parts.append(_minimise(objective, tolerance, max_iterations))
    theta = torch.cat([part[0] for part in parts], dim=1)
    loss = torch.cat([part[1] for part in parts])
    return Solution(theta[:-1], theta[-1], loss, max(part[2] for part in parts))


class _Objective:
    """Value (P,) and gradient (r + 1, P, K) at theta (r + 1, P, K), the last row being the bias."""

    def __init__(self, features: Tensor, targets: Tensor, row_weights: Tensor, penalties: Tensor) -> None:
        self.features, self.targets, self.row_weights = features, targets, row_weights
        self.shape = (features.shape[1], len(penalties), targets.shape[2])
        self.penalties = penalties.expand(self.shape[0], -1).clone()
        self.penalties[-1] = 0.0
        # The Hessian's diagonal for even class probabilities; Böhning's bound (1992) has the same form.
        spread = (features**2).T @ row_weights
        even = (1 - 1 / self.shape[2]) / self.shape[2]
        self.preconditioner = (1.0 / (even * spread + self.penalties).clamp_min(1e-12))[:, :, None]

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        rows, problems, classes = self.shape
        logits = (self.features @ theta.reshape(rows, -1)).view(-1, problems, classes)
        log_p = torch.log_softmax(logits, dim=2)
        cross = -(self.targets * log_p).sum(dim=2, dtype=torch.float64)
        value = (cross * self.row_weights).sum(dim=0)
        value += 0.5 * (self.penalties[:, :, None] * theta**2).sum(dim=(0, 2), dtype=torch.float64)
        residual = log_p.exp_().sub_(self.targets).mul_(self.row_weights[:, :, None])
        gradient = (self.features.T @ residual.view(len(residual), -1)).view(self.shape)
        return value, gradient.addcmul_(self.penalties[:, :, None], theta)


def _minimise(objective: _Objective, tolerance: float, max_iterations: int) -> tuple[Tensor, Tensor, int]:
    theta = torch.zeros(objective.shape)
    value, gradient = objective(theta)
    start = gradient.abs().amax(dim=(0, 2)).clamp_min(1e-12)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for iteration in range(max_iterations):
        active = gradient.abs().amax(dim=(0, 2)) > tolerance * start
        if not active.any():
            return theta, value, iteration
        direction = _direction(gradient, steps, objective.preconditioner)
        slope = _dot(gradient, direction)
        uphill = slope >= 0
        if uphill.any():  # rounding spoilt the history of a problem: fall back to the plain gradient
            direction = torch.where(uphill[:, None], -gradient * objective.preconditioner, direction)
            slope = _dot(gradient, direction)
        moved, new_value, new_gradient = _line_search(objective, theta, value, direction, slope, active)
        step, change = moved - theta, new_gradient - gradient
        curvature = _dot(step, change)
        inverse = torch.where(curvature > 1e-12 * _dot(change, change).clamp_min(1e-30), 1 / curvature, 0.0)
        steps = [*steps[-_HISTORY + 1 :], (step, change, inverse.float())]
        stalled = bool((value - new_value <= 1e-10 * value.abs()).all())
        theta, value, gradient = moved, new_value, new_gradient
        if stalled:
            return theta, value, iteration + 1
    return theta, value, max_iterations


def _line_search(
    objective: _Objective, theta: Tensor, value: Tensor, direction: Tensor, slope: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve the step of each problem until it descends enough; one that cannot stays where it is."""
    length = torch.where(active, 1.0, 0.0)
    for _ in range(_HALVINGS):
        moved = theta + length[:, None] * direction
        new_value, gradient = objective(moved)
        short = new_value > value + _ARMIJO * length * slope + 1e-9 * value.abs()
        if not short.any():
            return moved, new_value, gradient
        length = torch.where(short, length * 0.5, length)
    moved = theta + torch.where(short, 0.0, length)[:, None] * direction
    return moved, *objective(moved)


def _direction(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]], preconditioner: Tensor) -> Tensor:
    """Minus the L-BFGS inverse Hessian times the gradient, problem by problem."""
    vector, alphas = gradient.clone(), []
    for step, change, inverse in reversed(steps):
        alpha = inverse * _dot(step, vector).float()
        vector -= alpha[:, None] * change
        alphas.append(alpha)
    if steps:
        step, change, inverse = steps[-1]
        scaled = _dot(change, preconditioner * change).float()
        gain = torch.where((inverse > 0) & (scaled > 0), 1 / (inverse * scaled), 1.0)
        vector *= gain[:, None]
    vector *= preconditioner
    for (step, change, inverse), alpha in zip(steps, reversed(alphas), strict=True):
        beta = inverse * _dot(change, vector).float()
        vector += (alpha - beta)[:, None] * step
    return -vector


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of each problem, (P,) float64."""
    return (left * right).sum(dim=(0, 2), dtype=torch.float64)

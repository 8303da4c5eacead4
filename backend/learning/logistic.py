"""Many logistic regressions over the same rows, multinomial or binary, solved together: folds, penalties, labels.

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
    start: Tensor | None = None,
    is_binary: bool = False,
) -> Solution:
    """Minimise ``sum_i v_i CE(t_i, softmax(x_i W + b)) + penalty / 2 |W|^2`` for each of P problems.

    ``features`` (n, r) float32; ``targets`` (n, 1 or P, K), rows summing to 1; ``row_weights`` (n, P), each
    column summing to 1 and zero for rows that a problem does not see; ``penalties`` (P,), positive. The bias is
    not penalised. A problem ends when its gradient's largest entry is below ``tolerance`` times the first one's;
    ``start`` (r + 1, P, K), the bias last, is where it begins, by default at 0. With ``is_binary`` K is 1 and targets
    are chances of a yes: a sigmoid in the place of the softmax, and the binary cross entropy.
    L-BFGS with a diagonal preconditioner: fastest when the columns of ``features`` are uncorrelated.

    Liu & Nocedal, *On the limited memory BFGS method*, Mathematical Programming 1989.
    """
    n, classes = features.shape[0], targets.shape[2]
    row_bytes = 4 * classes * max(3 * n, 2 * _HISTORY * features.shape[1])
    group = max(1, min(len(penalties), _WORKSPACE_BYTES // row_bytes))
    ones = torch.cat([features, torch.ones(n, 1)], dim=1)
    parts = []
    for first in range(0, len(penalties), group):
        span = slice(first, first + group)
        shared = targets if targets.shape[1] == 1 else targets[:, span]
        objective = (_Binary if is_binary else _Objective)(ones, shared, row_weights[:, span], penalties[span])
        begin = torch.zeros(objective.shape) if start is None else start[:, span].permute(1, 2, 0).contiguous()
        parts.append(_minimise(objective, begin, tolerance, max_iterations))
    theta = torch.cat([part[0] for part in parts]).permute(2, 0, 1)
    loss = torch.cat([part[1] for part in parts])
    return Solution(theta[:-1].contiguous(), theta[-1].contiguous(), loss, max(part[2] for part in parts))


class _Objective:
    """Value (P,) and gradient (P, K, r + 1) at theta (P, K, r + 1), the last column being the bias.

    Rows lie innermost, so that softmax and sums over K classes run along whole vectors of rows. The targets enter
    through one product with the features: ``sum_i v_i t_i z_i`` is linear in theta.
    """

    def __init__(self, features: Tensor, targets: Tensor, row_weights: Tensor, penalties: Tensor) -> None:
        self.features, self.row_weights = features, row_weights.T.contiguous()
        self.shape = (len(penalties), targets.shape[2], features.shape[1])
        self.penalties = penalties[:, None, None].repeat(1, 1, features.shape[1])
        self.penalties[:, :, -1] = 0.0
        weighted = targets.permute(1, 2, 0) * self.row_weights[:, None]
        self.linear = (weighted.reshape(-1, len(features)) @ features).view(self.shape)
        # The Hessian's diagonal for even class probabilities; Böhning's bound (1992) has the same form.
        spread = self.row_weights @ features**2
        even = self._even()
        self.preconditioner = 1.0 / (even * spread[:, None] + self.penalties).clamp_min(1e-12)

    def _even(self) -> float:
        """The variance of a class's indicator where all are as probable."""
        return (1 - 1 / self.shape[1]) / self.shape[1]

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        problems, classes, columns = self.shape
        logits = (theta.view(-1, columns) @ self.features.T).view(problems, classes, -1)
        peak = logits.amax(dim=1)
        chances = logits.sub_(peak[:, None]).exp_()
        total = chances.sum(dim=1)
        value = ((total.log() + peak) * self.row_weights).sum(dim=1, dtype=torch.float64)
        value += _dot(theta, 0.5 * self.penalties * theta - self.linear)
        chances.mul_((self.row_weights / total)[:, None])
        gradient = (chances.view(-1, chances.shape[2]) @ self.features).view(self.shape)
        return value, gradient.sub_(self.linear).addcmul_(self.penalties, theta)


class _Binary(_Objective):
    """The same for problems of one yes or no each: theta (P, 1, r + 1)."""

    def _even(self) -> float:
        return 0.25

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        logits = theta[:, 0] @ self.features.T
        value = (torch.nn.functional.softplus(logits) * self.row_weights).sum(dim=1, dtype=torch.float64)
        value += _dot(theta, 0.5 * self.penalties * theta - self.linear)
        gradient = (torch.sigmoid(logits) * self.row_weights) @ self.features
        return value, gradient[:, None].sub_(self.linear).addcmul_(self.penalties, theta)


def _minimise(
    objective: _Objective, theta: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, int]:
    value, gradient = objective(theta)
    first = gradient.abs().amax(dim=(1, 2)).clamp_min(1e-12)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for iteration in range(max_iterations):
        active = gradient.abs().amax(dim=(1, 2)) > tolerance * first
        if not active.any():
            return theta, value, iteration
        direction = _direction(gradient, steps, objective.preconditioner)
        slope = _dot(gradient, direction)
        uphill = slope >= 0
        if uphill.any():  # rounding spoilt the history of a problem: fall back to the plain gradient
            direction = torch.where(uphill[:, None, None], -gradient * objective.preconditioner, direction)
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
        moved = theta + length[:, None, None] * direction
        new_value, gradient = objective(moved)
        short = new_value > value + _ARMIJO * length * slope + 1e-9 * value.abs()
        if not short.any():
            return moved, new_value, gradient
        length = torch.where(short, length * 0.5, length)
    moved = theta + torch.where(short, 0.0, length)[:, None, None] * direction
    return moved, *objective(moved)


def _direction(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]], preconditioner: Tensor) -> Tensor:
    """Minus the L-BFGS inverse Hessian times the gradient, problem by problem."""
    vector, alphas = gradient.clone(), []
    for step, change, inverse in reversed(steps):
        alpha = inverse * _dot(step, vector).float()
        vector -= alpha[:, None, None] * change
        alphas.append(alpha)
    if steps:
        step, change, inverse = steps[-1]
        scaled = _dot(change, preconditioner * change).float()
        gain = torch.where((inverse > 0) & (scaled > 0), 1 / (inverse * scaled), 1.0)
        vector *= gain[:, None, None]
    vector *= preconditioner
    for (step, change, inverse), alpha in zip(steps, reversed(alphas), strict=True):
        beta = inverse * _dot(change, vector).float()
        vector += (alpha - beta)[:, None, None] * step
    return -vector


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of each problem, (P,) float64."""
    return (left * right).sum(dim=(1, 2), dtype=torch.float64)

"""One hidden layer on embeddings, trained for all folds side by side; the folds say when to stop."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.learning.calibration import MIN_SAMPLES, fit_temperature, log_loss
from backend.learning.candidates import Fitted, Labelled, judge, uncorrelated

_PENALTY = 1e-3  # of a committee around the last layer, per hidden unit
_RANK = 512  # principal components that it reads: a third of the time of all 1,792
_STEPS = 20  # an epoch, of minibatches of 16 to 256: few labels need no fewer steps than many
_SMALLEST, _LARGEST = 16, 256
_WARM_UP = 10  # steps
_MOMENTUM, _SECOND = 0.9, 0.999
_EPSILON = 1e-8


@dataclass(frozen=True)
class Recipe:
    """How a perceptron is trained: `decay` is AdamW's, `dropout` the share of hidden units that a step lacks."""

    hidden: int = 128
    learning_rate: float = 2e-3
    decay: float = 0.1
    dropout: float = 0.3
    epochs: int = 40
    patience: int = 5


@dataclass(frozen=True, eq=False)
class Trained:
    """P networks at their best epoch: hidden (P, r, h), hidden_bias (P, h), weights (P, h, K), bias (P, K).

    ``logits`` (m, K) are of the ``rows`` (m,) that were held out, by the network that did not see them.
    """

    hidden: Tensor
    hidden_bias: Tensor
    weights: Tensor
    bias: Tensor
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    epochs: int


def fit_perceptron(labelled: Labelled, recipe: Recipe, seed: int) -> Fitted:
    """A head with one hidden layer on the labels. It reads the leading principal components, scaled to even size.

    `penalty` is what a committee around its last layer uses; the fit itself has `recipe.decay`.
    """
    rotated, basis = uncorrelated(labelled.features)
    order = rotated.square().sum(dim=0).argsort(descending=True, stable=True)[:_RANK]
    rotated, basis = rotated[:, order], basis[:, order]
    size = rotated.square().mean().sqrt().clamp_min(1e-12)
    row_weights = labelled.targets() @ labelled.class_weights
    found = train(
        rotated / size, labelled.labels, labelled.fold, labelled.folds, row_weights, recipe, seed, labelled.classes
    )
    enough = len(found.rows) >= MIN_SAMPLES
    temperature = fit_temperature(found.logits, labelled.labels[found.rows]) if enough else 1.0
    candidates = (judge(labelled, found.logits, "mlp", _PENALTY),) if labelled.folds else ()
    hidden = basis @ (found.hidden[-1] / size), found.hidden_bias[-1]
    last = found.weights[-1][:, None], found.bias[-1:]
    return Fitted("mlp", _PENALTY, *last, temperature, found.rows, found.logits, candidates, hidden)


def train(
    features: Tensor,
    labels: NDArray[np.int64],
    fold: NDArray[np.int64],
    folds: int,
    row_weights: Tensor,
    recipe: Recipe,
    seed: int,
    classes: int,
) -> Trained:
    """Train ``folds + 1`` networks: each on all rows but its fold's, the last one on all.

    features (n, r) float32; labels (n,) below `classes`; fold (n,), -1 never held out; row_weights (n,) weigh the loss.
    All begin alike and see the same minibatches, a fold's rows with weight 0, so one batched product serves them all.
    After each epoch the held-out rows are judged by their calibrated log loss; all networks are kept as they were at
    the best one, and `patience` epochs without a gain end it. Without folds there is nothing to judge by: a third of
    the epochs are run. Costs epochs · n · r · h · 6 (folds + 1). Loshchilov & Hutter, *Decoupled weight decay
    regularization*, ICLR 2019, 1711.05101.
    """
    generator = torch.Generator().manual_seed(seed)
    networks = _Networks(features.shape[1], classes, folds + 1, recipe, generator)
    targets = torch.from_numpy(labels)
    parts = torch.from_numpy(np.stack([*(fold != part for part in range(folds)), np.ones(len(fold), bool)])).float()
    rows = np.flatnonzero(fold >= 0)
    best, best_loss, best_epoch = networks.copy(), np.inf, 0
    logits = networks.held_out(features, fold, rows)
    epochs = recipe.epochs if folds else max(1, recipe.epochs // 3)
    steps = -(-len(labels) // min(_LARGEST, max(_SMALLEST, len(labels) // _STEPS)))
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for step in range(steps):
            chosen = order[step::steps]
            pace = min(1.0, (epoch * steps + step + 1) / _WARM_UP) * (1 - (epoch * steps + step) / (epochs * steps))
            networks.advance(features[chosen], targets[chosen], parts[:, chosen] * row_weights[chosen], pace)
        if not folds:
            continue
        found = networks.held_out(features, fold, rows)
        loss = log_loss(found, labels[rows], fit_temperature(found, labels[rows]))
        if loss < best_loss:
            best, best_loss, best_epoch, logits = networks.copy(), loss, epoch, found
        elif epoch - best_epoch >= recipe.patience:
            break
    hidden, hidden_bias, weights, bias = best if folds else networks.copy()
    return Trained(hidden, hidden_bias, weights, bias, rows, logits, best_epoch + 1 if folds else epochs)


class _Networks:
    """P perceptrons, their gradients written out, and AdamW."""

    def __init__(self, features: int, classes: int, count: int, recipe: Recipe, generator: torch.Generator) -> None:
        self.recipe, self.generator, self.steps = recipe, generator, 0
        first = torch.randn(features, recipe.hidden, generator=generator) * (2 / features) ** 0.5  # He et al. 2015
        self.parameters = [
            first.repeat(count, 1, 1),
            torch.zeros(count, recipe.hidden),
            torch.zeros(count, recipe.hidden, classes),
            torch.zeros(count, classes),
        ]
        self.moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in self.parameters]

    def copy(self) -> list[Tensor]:
        return [one.clone() for one in self.parameters]

    def held_out(self, features: Tensor, fold: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (m, K) of the rows, each by the network of its fold."""
        hidden, hidden_bias, weights, bias = self.parameters
        logits = np.empty((len(rows), bias.shape[1]), np.float32)
        for part in np.unique(fold[rows]):
            mine = fold[rows] == part
            reached = (features[rows[mine]] @ hidden[part] + hidden_bias[part]).relu()
            logits[mine] = (reached @ weights[part] + bias[part]).numpy()
        return logits

    def advance(self, x: Tensor, targets: Tensor, row_weights: Tensor, pace: float) -> None:
        """One step on rows x (b, r) with weights (P, b)."""
        hidden, hidden_bias, weights, bias = self.parameters
        before = torch.matmul(x, hidden) + hidden_bias[:, None]
        kept = torch.rand(len(x), hidden.shape[2], generator=self.generator) >= self.recipe.dropout
        alive = (before > 0) * kept / (1 - self.recipe.dropout)
        reached = before * alive
        chances = torch.softmax(torch.baddbmm(bias[:, None], reached, weights), dim=2)
        chances[:, torch.arange(len(x)), targets] -= 1
        chances *= (row_weights / row_weights.sum(dim=1, keepdim=True).clamp_min(1e-12))[:, :, None]
        back = torch.bmm(chances, weights.transpose(1, 2)) * alive
        gradients = [
            torch.matmul(x.T, back),
            back.sum(dim=1),
            torch.bmm(reached.transpose(1, 2), chances),
            chances.sum(dim=1),
        ]
        self.steps += 1
        rate = self.recipe.learning_rate * pace
        for at, (parameter, gradient, (first, second)) in enumerate(
            zip(self.parameters, gradients, self.moments, strict=True)
        ):
            first.lerp_(gradient, 1 - _MOMENTUM)
            second.lerp_(gradient.square(), 1 - _SECOND)
            if at % 2 == 0:  # biases do not decay
                parameter.mul_(1 - rate * self.recipe.decay)
            size = (second / (1 - _SECOND**self.steps)).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(first, size, value=-rate / (1 - _MOMENTUM**self.steps))

"""Draws around a head follow the curvature of its loss, whoever computes that."""

import numpy as np
import torch

from backend.learning.committee import dropout, held_out, laplace
from backend.learning.laplace import deviations
from backend.learning.training import fit
from tests.learning.test_training import CLASSES, digits


def by_autograd(features: torch.Tensor, theta: torch.Tensor, precision: float) -> torch.Tensor:
    """The inverse Hessian of the loss, (r + 1) K square, in float64."""
    rows = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    labels = torch.randint(0, theta.shape[1], (len(rows),), generator=torch.Generator().manual_seed(9))
    prior = torch.full((rows.shape[1], 1), precision, dtype=torch.float64)
    prior[-1] = 1.0

    def loss(flat: torch.Tensor) -> torch.Tensor:
        head = flat.view(theta.shape)
        return torch.nn.functional.cross_entropy(rows @ head, labels, reduction="sum") + (prior * head**2).sum() / 2

    hessian = torch.autograd.functional.hessian(loss, theta.double().flatten())
    return torch.linalg.inv(hessian)  # type: ignore[arg-type]


def test_draws_have_the_covariance_of_the_inverse_hessian() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn((40, 4), generator=generator) * torch.tensor([3.0, 1.0, 0.3, 1.0])
    theta = torch.randn((5, 3), generator=generator)
    chances = torch.softmax(features @ theta[:-1] + theta[-1], dim=1)

    weights, bias = deviations(features, chances, 0.7, 40_000)

    drawn = torch.cat([weights, bias[None]]).permute(1, 0, 2).flatten(1).double()
    expected = by_autograd(features, theta, 0.7)
    spread = expected.diagonal().sqrt()
    error = (torch.cov(drawn.T) - expected) / torch.outer(spread, spread)
    assert error.abs().max() < 0.04  # 40,000 draws: a standard error of 0.007
    assert (drawn.mean(dim=0) / spread).abs().max() < 0.03


def test_more_labels_leave_less_open() -> None:
    x, y = digits()
    few, many = fit(x[:60], y[:60], CLASSES), fit(x[:600], y[:600], CLASSES)

    spread = [
        np.std(
            [head.logits(x[600:]) for head in laplace(report.head, x[:labels], y[:labels], report.penalty, 8)], axis=0
        )
        for report, labels in ((few, 60), (many, 600))
    ]

    assert spread[1].mean() < spread[0].mean()


def test_heads_that_lack_features_are_the_head_on_the_mean() -> None:
    x, y = digits()
    head = fit(x[:200], y[:200], CLASSES).head

    heads = dropout(head, members=400, seed=1)

    mean = np.mean([one.logits(x[:50]) for one in heads], axis=0)
    spread = np.std([one.logits(x[:50]) for one in heads], axis=0)
    assert np.abs(mean - head.logits(x[:50])).max() < 5 * spread.max() / 400**0.5
    assert {int(row) for row in np.count_nonzero([one.weights[:, 0] for one in heads], axis=1)} != {head.features}


def test_a_head_that_has_not_seen_a_wrong_label_contradicts_it() -> None:
    x, y = digits()
    said = y[:300].copy()
    said[::20] = (said[::20] + 1) % 10
    report = fit(x[:300], said, CLASSES)

    unseen = held_out(report.head, x[:300], said, report.penalty)

    is_wrong = np.arange(300) % 20 == 0
    trust = unseen[np.arange(300), said]
    np.testing.assert_allclose(unseen.sum(axis=1), 1, atol=1e-4)
    assert (unseen.argmax(axis=1) == y[:300]).mean() > 0.8
    assert np.median(trust[is_wrong]) < 0.05 < np.median(trust[~is_wrong])

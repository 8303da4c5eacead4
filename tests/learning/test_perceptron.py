"""The head with a hidden layer: gradients against autograd, folds that are honest, and what it learns."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backend.learning import committee
from backend.learning.calibration import fit_temperature, log_loss
from backend.learning.folds import assign_folds
from backend.learning.perceptron import Recipe, _Networks, train
from backend.learning.training import METHODS, Tuned, fit
from tests.learning.test_training import CLASSES, digits, lend

MLP = METHODS["mlp"]
QUICK = Recipe(hidden=32, epochs=12)


def rings(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two classes that no plane parts: near the centre, and around it."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, count)
    angle, radius = random.uniform(0, 2 * np.pi, count), 1 + 1.5 * y + random.normal(0, 0.2, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32), y


def test_a_step_is_what_autograd_and_torchs_adamw_make_of_it() -> None:
    recipe = Recipe(hidden=7, dropout=0.0, decay=0.2, learning_rate=0.01)
    networks = _Networks(5, 3, 2, recipe, torch.Generator().manual_seed(0))
    mine = [one.clone().requires_grad_() for one in networks.parameters]
    groups = [{"params": mine[::2], "weight_decay": 0.2}, {"params": mine[1::2], "weight_decay": 0.0}]
    oracle = torch.optim.AdamW(groups, lr=0.01, eps=1e-8)
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(3, 9, 5, generator=random), torch.randint(0, 3, (3, 9), generator=random)
    weights = torch.rand(2, 9, generator=random)

    for step in range(3):
        networks.advance(x[step], y[step], weights, 1.0)
        oracle.zero_grad()
        for part in range(2):
            hidden, hidden_bias, last, bias = (one[part] for one in mine)
            logits = (x[step] @ hidden + hidden_bias).relu() @ last + bias
            loss = torch.nn.functional.cross_entropy(logits, y[step], reduction="none")
            ((loss * weights[part]).sum() / weights[part].sum()).backward()
        oracle.step()

    for one, other in zip(networks.parameters, mine, strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-5, rtol=1e-4)


def test_a_fold_is_judged_by_a_network_that_never_saw_its_rows() -> None:
    x, y = digits()
    labels = y[:200].copy()
    fold, folds = assign_folds(labels, np.random.default_rng(0))
    features = torch.from_numpy((x[:200] - 8) / 6)
    weights = torch.ones(200)
    first = train(features, labels, fold, folds, weights, QUICK, 0, 10)

    lies = labels.copy()
    lies[fold == 1] = (lies[fold == 1] + 1) % 10
    second = train(features, lies, fold, folds, weights, Recipe(hidden=32, epochs=1), 0, 10)
    truth = train(features, labels, fold, folds, weights, Recipe(hidden=32, epochs=1), 0, 10)

    of_fold = fold[truth.rows] == 1
    np.testing.assert_array_equal(second.logits[of_fold], truth.logits[of_fold])
    assert not np.array_equal(second.logits[~of_fold], truth.logits[~of_fold])
    assert (first.logits.argmax(axis=1) == labels[first.rows]).mean() > 0.8


def test_it_learns_what_no_plane_parts_and_best_prefers_it() -> None:
    x, y = rings(400, 0)
    unseen, truth = rings(1_000, 1)

    linear, mlp, best = (fit(x, y, ("in", "out"), methods=METHODS[kind]) for kind in ("linear", "mlp", "best"))

    right = [float((one.head.predict(unseen).argmax(axis=1) == truth).mean()) for one in (linear, mlp, best)]
    assert right[0] < 0.7
    assert right[1] > 0.95
    assert best.method == "mlp"
    assert best.head.digest == mlp.head.digest


def test_equal_arguments_give_equal_bits_and_another_seed_other_ones() -> None:
    x, y = digits()

    one, same, other = (fit(x[:120], y[:120], CLASSES, methods=MLP, seed=seed) for seed in (3, 3, 4))

    assert one.head.digest == same.head.digest != other.head.digest


def test_it_is_calibrated_on_labels_that_it_has_not_seen() -> None:
    x, y = digits()

    found = fit(x[:600], y[:600], CLASSES, methods=MLP)

    assert found.calibrated
    logits, truth = found.head.logits(x[600:]), y[600:]
    assert log_loss(logits, truth) < log_loss(logits, truth, fit_temperature(logits, truth)) + 0.03
    assert (logits.argmax(axis=1) == truth).mean() > 0.93


def test_weights_of_classes_move_predictions_to_the_rare_one() -> None:
    random = np.random.default_rng(0)
    y = (random.random(500) < 0.08).astype(np.int64)
    x = (random.normal(size=(500, 4)) + y[:, None] * 0.8).astype(np.float32)

    plain, even = (fit(x, y, ("common", "rare"), methods=MLP, balanced=b).head.predict(x) for b in (False, True))

    assert even[:, 1].mean() > 2 * plain[:, 1].mean()


@pytest.mark.parametrize("count", [8, 40])
def test_few_labels_and_a_class_without_one_are_no_trouble(count: int) -> None:
    x, y = digits()
    y = y % 3

    found = fit(x[:count], y[:count], CLASSES, lend(x[:300], count), methods=MLP)

    probabilities = found.head.predict(x)
    assert np.isfinite(probabilities).all()
    assert (probabilities.argmax(axis=1) < 3).all()
    assert found.graph_nodes == 0


@pytest.mark.parametrize("source", ["bootstrap", "dropout", "laplace"])
def test_plausible_heads_share_the_hidden_layer_and_scatter_around_the_head(source: committee.Source) -> None:
    x, y = digits()
    report = fit(x[:200], y[:200], CLASSES, methods=MLP, tuned=Tuned(recipe=QUICK))

    heads = committee.plausible(source, report.head, x[:200], y[:200], report.penalty, members=6)
    said = committee.samples(heads, x[:300])

    for member, head in enumerate(heads):
        np.testing.assert_array_equal(head.hidden, report.head.hidden)
        np.testing.assert_allclose(said[member], head.predict(x[:300]), atol=1e-4)
    assert said.std(axis=0).max() > 1e-3
    agreeing = said.mean(axis=0).argmax(axis=1) == report.head.predict(x[:300]).argmax(axis=1)
    assert agreeing.mean() > 0.75

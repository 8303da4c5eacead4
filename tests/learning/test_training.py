"""Fitting against oracles: scikit-learn's optimum, the dense closed form of propagation, and repeatability."""

import hashlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from backend.errors import NothingToLearnFrom, UnusableTrainingData
from backend.learning.calibration import fit_temperature, log_loss
from backend.learning.candidates import Unlabelled
from backend.learning.folds import assign_folds
from backend.learning.logistic import solve
from backend.learning.neighbours import build
from backend.learning.training import fit

CLASSES = tuple("0123456789")
LOGISTIC = frozenset({"logistic"})
PROPAGATION = frozenset({"propagation"})


def digits(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All 1,797 digits, (n, 64), shuffled."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order].astype(np.float32), y[order].astype(np.int64)


def lend(x: NDArray[np.floating], labelled: int, pool: slice | None = None) -> Unlabelled:
    """The graph of the first `labelled` rows and of the pool's rows, by default of all of `x`."""
    rows = np.arange(len(x)) if pool is None else np.concatenate([np.arange(labelled), np.arange(len(x))[pool]])
    keys = np.array([f"{row:05d}".encode() for row in rows])

    def read(wanted: NDArray[np.bytes_]) -> NDArray[np.floating]:
        return x[wanted.astype(np.int64)]

    return Unlabelled.draw(build(keys, read), keys[:labelled], read, seed=0)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 80),
    d=st.integers(1, 30),
    k=st.integers(3, 6),  # scikit-learn's two-class model has one row of weights, another penalty
    penalty=st.sampled_from([1e-3, 1e-2, 1.0]),
)
def test_the_optimum_is_sklearns(seed: int, n: int, d: int, k: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)).astype(np.float32), np.arange(n) % k
    oracle = LogisticRegression(C=1 / (n * penalty), tol=1e-10, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle.fit(x.astype(np.float64), y)

    targets = torch.nn.functional.one_hot(torch.tensor(y)).float()[:, None]
    found = solve(torch.tensor(x), targets, torch.full((n, 1), 1 / n), torch.tensor([penalty]), 1e-6, 2_000)

    seen = len(oracle.classes_)
    logits = x.astype(np.float64) @ oracle.coef_.T + oracle.intercept_
    best = -log_softmax(logits, axis=1)[np.arange(n), y].mean() + penalty / 2 * (oracle.coef_**2).sum()
    assert seen == targets.shape[2]
    assert float(found.objective[0]) == pytest.approx(best, rel=2e-4, abs=1e-6)


def test_problems_solved_together_have_the_optima_of_each_alone() -> None:
    random = np.random.default_rng(0)
    x = torch.tensor(random.normal(size=(60, 8)).astype(np.float32))
    targets = torch.tensor(random.dirichlet(np.ones(3), size=(60, 4)).astype(np.float32))
    weights = torch.tensor(random.uniform(size=(60, 4)).astype(np.float32))
    weights, penalties = weights / weights.sum(dim=0), torch.tensor([1e-3, 1e-2, 0.1, 1.0])

    together = solve(x, targets, weights, penalties, 1e-6, 1_000)

    for at in range(4):
        one = slice(at, at + 1)

        def objective(theta: NDArray[np.float64], at: int = at) -> float:
            w, b = theta[:24].reshape(8, 3), theta[24:]
            log_p = log_softmax(x.numpy().astype(np.float64) @ w + b, axis=1)
            cross = -(targets[:, at].numpy() * log_p).sum(axis=1)
            return float(cross @ weights[:, at].numpy() + float(penalties[at]) / 2 * (w**2).sum())

        alone = solve(x, targets[:, one], weights[:, one], penalties[one], 1e-6, 1_000)
        oracle = minimize(objective, np.zeros(27), tol=1e-10)
        assert float(together.objective[at]) == pytest.approx(float(alone.objective[0]), rel=1e-5)
        assert float(together.objective[at]) == pytest.approx(oracle.fun, rel=1e-5)


def test_calibration_undoes_overconfidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4_000, 5)) * 2
    labels = (np.cumsum(np.exp(log_softmax(logits, axis=1)), axis=1) < random.random((4_000, 1))).sum(axis=1)

    found = fit_temperature(logits * 3, labels)

    assert found == pytest.approx(3, rel=0.1)
    assert log_loss(logits * 3, labels, found) < log_loss(logits * 3, labels) - 0.1


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=200), seed=st.integers(0, 1_000))
def test_folds_hold_out_everyone_once_but_lone_labels_never(labels: list[int], seed: int) -> None:
    _, own = np.unique(labels, return_inverse=True)

    fold, folds = assign_folds(own, np.random.default_rng(seed))

    counts = np.bincount(own)
    assert folds in (0, 5)
    assert ((fold >= 0) == (counts[own] >= 2)).all() if folds else (fold == -1).all()
    for part in range(folds):
        assert set(own[fold != part]) == set(own), "a class vanished from a training part"
        share = np.bincount(own[fold == part], minlength=len(counts))
        assert (np.abs(share - counts / 5) <= 1).all() or (counts < 5).any()


def test_the_pool_helps_while_labels_are_few() -> None:
    gains = []
    for seed in range(2):
        x, y = digits(seed)
        known, test, pool = slice(0, 60), slice(1_300, None), slice(60, 1_300)
        plain = fit(x[known], y[known], CLASSES, seed=seed)
        helped = fit(x[known], y[known], CLASSES, lend(x, 60, pool), seed=seed)
        gains.append(np.subtract(*[(r.head.predict(x[test]).argmax(1) == y[test]).mean() for r in (helped, plain)]))

    assert helped.method == "propagation"
    assert helped.chosen_by == "cross-validation"
    assert np.mean(gains) > 0.02


def test_a_pool_that_misleads_does_no_harm() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(1_200, 40)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)  # the pool's clusters lie along other, far longer directions
    x[:, 1:4] = random.normal(size=(3, 3))[random.integers(0, 3, 1_200)] * 50 + random.normal(size=(1_200, 3))

    plain, helped = fit(x[:150], y[:150], ("no", "yes")), fit(x[:150], y[:150], ("no", "yes"), lend(x[:500], 150))

    best = min(helped.candidates, key=lambda candidate: candidate.log_loss)
    right = [(report.head.predict(x[500:]).argmax(axis=1) == y[500:]).mean() for report in (plain, helped)]
    assert helped.method == best.method
    assert helped.neighbours == 0
    assert {candidate.method for candidate in helped.candidates} == {"logistic", "propagation", "neighbours"}
    assert right[1] >= right[0] - 0.03


def test_out_of_fold_probabilities_foretell_the_accuracy() -> None:
    x, y = digits()

    found = fit(x[:400], y[:400], CLASSES)

    assert found.out_of_fold is not None
    assert found.calibrated
    rows, probabilities = found.out_of_fold.rows, found.out_of_fold.probabilities
    foretold = (probabilities.argmax(axis=1) == y[rows]).mean()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert foretold == pytest.approx((found.head.predict(x[400:]).argmax(axis=1) == y[400:]).mean(), abs=0.04)


def test_the_same_arguments_give_the_same_bits_in_another_process() -> None:
    program = (
        "from tests.learning.test_training import digits, lend, CLASSES\n"
        "from backend.learning.training import fit\n"
        "x, y = digits()\n"
        "print(fit(x[:80], y[:80], CLASSES, lend(x[:600], 80), seed=7).head.digest)"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}

    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    ]

    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == hashlib.sha256().digest_size * 2


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 12, 35])
def test_few_labels_and_unseen_classes_still_give_probabilities(count: int, pool: bool) -> None:
    x, y = digits()

    found = fit(x[:count], y[:count] % 3, CLASSES, lend(x[:500], count) if pool else None)

    p = found.head.predict(x[:500])
    assert found.classes_seen <= 3
    assert np.isfinite(p).all()
    assert (p > 0).all()
    assert set(p.argmax(axis=1)) <= set(y[:count] % 3)
    assert (p[:count, 3:].mean(axis=0) < 0.2).all()


def test_one_class_gives_laplaces_probabilities() -> None:
    x, _ = digits()

    found = fit(x[:7], np.full(7, 2), ("a", "b", "c"), lend(x[:300], 7))

    np.testing.assert_allclose(found.head.predict(x), np.tile([0.1, 0.1, 0.8], (len(x), 1)), atol=1e-5)


def test_balanced_weights_help_the_rare_class() -> None:
    random = np.random.default_rng(0)
    y = (random.random(600) < 0.05).astype(np.int64)
    x = (random.normal(size=(600, 5)) + y[:, None]).astype(np.float32)

    plain, balanced = (
        fit(x[:300], y[:300], ("common", "rare"), balanced=b).head.predict(x[300:]) for b in (False, True)
    )

    def recall(p: NDArray[np.float32]) -> float:
        return float((p.argmax(axis=1) == 1)[y[300:] == 1].mean())

    assert recall(balanced) > recall(plain) + 0.2


def test_broken_embeddings_and_constant_features_are_survived() -> None:
    x, y = digits()  # some pixels of digits are always 0
    x = x.astype(np.float16)
    x[3, 5], x[700, 1] = np.nan, np.inf

    found = fit(x[:200], y[:200], CLASSES, lend(x, 200))

    assert (found.dropped, found.labels) == (1, 199)
    assert np.isfinite(found.head.weights).all()


def test_duplicates_and_zero_embeddings_are_survived() -> None:
    x = np.repeat(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], np.float16), 20, axis=0)
    y = np.repeat([0, 1, 2], 20)

    found = fit(x, y, ("a", "b", "c"), lend(np.tile(x, (2, 1)), len(x)))

    assert (found.head.predict(x).argmax(axis=1) == y).all()


def test_what_cannot_be_fitted_says_why() -> None:
    x, y = digits()

    with pytest.raises(NothingToLearnFrom):
        fit(x[:0], y[:0], CLASSES)
    with pytest.raises(UnusableTrainingData, match="outside the 5 classes"):
        fit(x, y, CLASSES[:5])
    with pytest.raises(UnusableTrainingData, match="shape"):
        fit(x, y[:-1], CLASSES)
    with pytest.raises(UnusableTrainingData, match="pool"):
        fit(x[:50], y[:50], CLASSES, lend(x[:, :3], 50))

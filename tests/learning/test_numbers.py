"""Heads for numbers: held against scikit-learn and the textbook's formulae, honest, stored, measured by brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from backend.errors import HeadNotForTask, HeadUnreadable
from backend.learning.contrast import contrast_numbers
from backend.learning.heads import Head
from backend.learning.number_evaluate import compare_numbers, evaluate_numbers, is_worse
from backend.learning.number_heads import NumberHead, limits_of
from backend.learning.number_training import fit_numbers
from backend.learning.targets import target_of
from backend.questions import NUMBER, Scale, question
from backend.settings import HeadSection
from strategies import Task

DIMS = 10


def world(n: int, seed: int = 0, noise: float = 0.5) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, DIMS)) * np.linspace(1, 3, DIMS)).astype(np.float32)
    direction = np.random.default_rng(99).normal(size=DIMS)
    return x, 20 + x @ direction + rng.normal(size=n) * noise


@pytest.mark.parametrize("labels", [6, 80])
def test_numbers_and_deviations_are_those_of_the_textbook(labels: int) -> None:
    x, y = world(labels)
    unseen = world(40, seed=1)[0]
    report = fit_numbers(x, y, Scale())
    assert isinstance(report.head, NumberHead)
    sigma, alpha, count, _ = map(float, report.head.noise)

    said = report.head.predict(unseen)

    z, new = ((one - x.mean(axis=0)) / x.std(axis=0) for one in (x.astype(float), unseen))
    other = Ridge(alpha=alpha).fit(z, y)
    assert np.allclose(said[:, 0], other.predict(new), atol=1e-3)
    inverse = np.linalg.inv(z.T @ z + alpha * np.eye(DIMS))
    variance = sigma**2 * (1 + 1 / count + np.einsum("nd,de,ne->n", new, inverse, new))
    assert np.allclose(said[:, 1], report.head.temperature * np.sqrt(variance), rtol=1e-3)


def test_what_is_said_of_a_label_without_it_is_what_a_fit_without_it_says() -> None:
    x, y = world(70)
    report = fit_numbers(x, y, Scale())
    assert isinstance(report.head, NumberHead)
    assert report.out_of_fold is not None
    alpha = float(report.head.noise[1])
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    for row in (0, 31, 69):
        others = np.arange(len(y)) != row
        alone = Ridge(alpha=alpha).fit(z[others], y[others]).predict(z[row : row + 1])
        assert report.out_of_fold.probabilities[row, 0] == pytest.approx(alone[0], abs=0.02)


def test_deviations_are_honest_on_items_that_were_not_seen() -> None:
    x, y = world(200, noise=2)
    unseen, truth = world(2_000, seed=1, noise=2)

    measured = evaluate_numbers(fit_numbers(x, y, Scale()).head.predict(unseen), truth)

    assert 0.93 < measured.inside < 0.97
    assert measured.r2 is not None
    assert measured.r2 > 0.8


def test_the_same_labels_give_the_same_bits_and_broken_rows_are_left_out() -> None:
    x, y = world(60)
    x[3] = np.nan
    one, other = (fit_numbers(x, y, Scale()) for _ in range(2))

    assert one.head.digest == other.head.digest
    assert one.dropped == 1
    assert one.out_of_fold is not None
    assert 3 not in one.out_of_fold.rows


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_few_and_equal_numbers_give_a_head(labels: int) -> None:
    x, _ = world(labels)

    said = fit_numbers(x, np.full(labels, 4.0), Scale()).head.predict(world(5)[0])

    assert np.isfinite(said).all()
    assert np.allclose(said[:, 0], 4, atol=0.01)


def test_a_head_survives_its_file_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    x, y = world(30)
    head = fit_numbers(x, y, Scale(1, 5, 1)).head
    path = tmp_path / "head.safetensors"
    head.save(path)

    read = Head.load(path, head.digest)

    assert read.task is Task.REGRESSION
    assert np.array_equal(read.predict(x), head.predict(x))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(HeadUnreadable):
        Head.load(path)


@pytest.mark.parametrize(
    ("scale", "number", "label"),
    [
        (Scale(1, 5, 1), 3.4, "3"), (Scale(1, 5, 1), 9, "5"), (Scale(1, 5, 1), -2, "1"), (Scale(), 3.14159, "3.142"),
        (Scale(0, 1, 0.25), 0.6, "0.5"), (Scale(low=0), -1, "0"),
    ],
)  # fmt: skip
def test_what_is_told_is_a_number_that_people_could_give(scale: Scale, number: float, label: str) -> None:
    common: dict[str, Any] = {"basis": np.zeros((1, 1)), "shrinkage": np.zeros(1), "limits": limits_of(scale)}
    noise = np.array([1, 1, 10, 4])
    head = NumberHead(NUMBER, np.zeros(1), np.ones(1), np.zeros((1, 1)), np.zeros(1), noise=noise, **common)

    assert head.label_of(np.array([number, 1.0], np.float32)) == label
    assert head.confidence(np.array([number, 1.0], np.float32)) == pytest.approx(0.75)


def test_measures_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300) * 3
    said = np.stack([truth + rng.normal(size=300), np.ones(300)], axis=1)

    found = evaluate_numbers(said, truth)

    assert found.mae == pytest.approx(mean_absolute_error(truth, said[:, 0]))
    assert found.rmse == pytest.approx(root_mean_squared_error(truth, said[:, 0]))
    assert found.r2 == pytest.approx(r2_score(truth, said[:, 0]))
    for name in ("mae", "rmse", "r2", "inside"):
        interval: Any = getattr(found, f"{name}_interval")
        assert interval.low < getattr(found, name) < interval.high
    assert is_worse(said[:, 0] + 1, said[:, 0], truth)
    assert not is_worse(said[:, 0], said[:, 0] + 1, truth)
    assert not is_worse(said[:, 0], said[:, 0], truth)
    assert evaluate_numbers(said, np.full(300, 2.0)).r2 is None


def test_two_models_of_numbers_are_compared_as_other_libraries_compare_them() -> None:
    rng = np.random.default_rng(7)
    truth = rng.normal(size=120) * 3
    new, current = (np.stack([truth + rng.normal(size=120) * by, np.ones(120)], axis=1) for by in (1.0, 1.6))

    found = contrast_numbers(new, current, truth)

    errors = [np.abs(said[:, 0] - truth) for said in (new, current)]
    paired = ttest_rel(*errors)
    interval = paired.confidence_interval()
    one = found.comparison
    assert (one.labels, one.measure) == (120, "mean absolute error")
    assert one.difference == pytest.approx(errors[0].mean() - errors[1].mean())
    assert (one.interval.low, one.interval.high) == pytest.approx((interval.low, interval.high))
    assert one.p_better == pytest.approx(ttest_rel(*errors, alternative="less").pvalue)
    assert one.p_worse == pytest.approx(1 - one.p_better)
    assert (one.won, one.lost) == ((errors[0] < errors[1]).sum(), (errors[0] > errors[1]).sum())
    rmse = [root_mean_squared_error(truth, said[:, 0]) for said in (new, current)]
    assert found.rmse.value == pytest.approx(rmse[0] - rmse[1])
    assert found.rmse.interval.low < found.rmse.value < found.rmse.interval.high < 0
    assert found.inside.value == pytest.approx(np.mean(errors[0] <= 1.96) - np.mean(errors[1] <= 1.96), abs=0.01)
    assert found.inside.interval.low > 0
    assert "mean absolute error -" in one.gap


def test_a_model_of_numbers_that_is_no_better_is_rarely_shown_to_be() -> None:
    rng, better = np.random.default_rng(0), 0
    for _ in range(400):
        new, current = rng.standard_t(3, size=(2, 100))  # heavy tails, so errors are far from normal
        better += compare_numbers(new, current, np.zeros(100)).p_better <= 0.0125

    assert better <= 12  # 1.25 % of 400 would be 5


PAIRS = st.integers(1, 20).flatmap(lambda n: arrays(np.float64, (3, n), elements=st.integers(-50, 50).map(float)))


@settings(max_examples=25, deadline=None)
@given(PAIRS)
def test_a_comparison_of_numbers_turns_round_with_its_sides(rows: NDArray[np.float64]) -> None:
    new, current, truth = rows

    one, other = compare_numbers(new, current, truth), compare_numbers(current, new, truth)

    assert one.difference == -other.difference
    assert (one.interval.low, one.interval.high) == (-other.interval.high, -other.interval.low)
    assert (one.won, one.lost) == (other.lost, other.won)
    assert one.p_better == pytest.approx(other.p_worse)
    assert not (one.is_worse and other.is_worse)
    assert one.interval.low <= one.difference <= one.interval.high
    assert compare_numbers(new, new, truth).p_better == 0.5


def test_labels_become_numbers_and_what_cannot_learn_them_is_refused() -> None:
    target = target_of(question(Task.REGRESSION, NUMBER))

    assert target.encode(["3", "-0.5", "1e3"]).tolist() == [3, -0.5, 1000]
    assert not target.is_enough(["3", "3.0", "3"])
    assert target.is_enough(["3", "4", "3"])
    with pytest.raises(HeadNotForTask, match="regression"):
        target.check(HeadSection(kind="mlp"))

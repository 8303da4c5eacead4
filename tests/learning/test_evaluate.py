"""Measures against scipy's and scikit-learn's, and the gate that a worse model does not pass."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from backend.errors import HoldoutMismatch
from backend.learning.evaluate import Evaluation, calibration_error, choose_labels, compare, evaluate, is_worse, wilson


def answers(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities of two classes for items labelled 0, right where told."""
    return np.where(correct[:, None], [0.8, 0.2], [0.2, 0.8])


@settings(max_examples=100, deadline=None)
@given(total=st.integers(1, 5_000), data=st.data())
def test_the_interval_is_wilsons(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))

    found = wilson(correct, total)

    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), k=st.integers(2, 6))
def test_the_measures_are_sklearns(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, labels = random.dirichlet(np.ones(k), n), random.integers(0, k, n)
    predicted = probabilities.argmax(axis=1)

    found = evaluate(probabilities, labels, tuple(map(str, range(k))))

    assert found.accuracy == pytest.approx((predicted == labels).mean())
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.log_loss == pytest.approx(log_loss(labels, probabilities, labels=range(k)))
    arguments = {"labels": list(range(k)), "average": None, "zero_division": np.nan}
    for measure, mine in ((precision_score, "precision"), (recall_score, "recall")):
        values = [getattr(one, mine) for one in found.classes]
        expected = measure(labels, predicted, **arguments)
        np.testing.assert_allclose([np.nan if v is None else v for v in values], expected)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 200_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    honest = (random.uniform(size=len(confidence)) > confidence).astype(int)
    boastful = (random.uniform(size=len(confidence)) > confidence - 0.2).astype(int)

    assert calibration_error(probabilities, honest) == pytest.approx(0, abs=0.01)
    assert calibration_error(probabilities, boastful) == pytest.approx(0.2, abs=0.01)


def test_an_evaluation_survives_json() -> None:
    found = evaluate(np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 0]), ("a", "b", "é"))

    assert Evaluation.from_json(found.to_json()) == found
    assert found.classes[2].precision is None


def test_below_a_hundred_holdout_labels_the_folds_decide() -> None:
    assert choose_labels(99) == "cross-validation"
    assert choose_labels(100) == "holdout"


def test_equal_models_are_not_worse_and_the_interval_holds_zero() -> None:
    probabilities = answers(np.arange(200) % 4 > 0)

    found = compare(probabilities, probabilities, np.zeros(200, int))

    assert not found.is_worse
    assert (found.difference, found.won, found.lost, found.p_worse) == (0, 0, 0, 1)
    assert found.interval.low < 0 < found.interval.high


def test_the_probability_is_mcnemars_and_decides() -> None:
    current, new = np.ones(200, bool), np.ones(200, bool)
    current[:4], new[4:18] = False, False

    found = compare(answers(new), answers(current), np.zeros(200, int))

    assert (found.won, found.lost) == (4, 14)
    assert found.p_worse == pytest.approx(binomtest(14, 18, alternative="greater").pvalue)
    assert found.is_worse
    assert found.interval.high < 0
    assert not is_worse(answers(current), answers(new), np.zeros(200, int))


def test_the_paired_interval_is_newcombes_published_example() -> None:
    # Newcombe 1998 (paired), table II: 36, 12, 2, 0 -> +0.2000, method 10: 0.0569 to 0.3404.
    new = np.repeat([True, True, False], [36, 12, 2])
    current = np.repeat([True, False, True], [36, 12, 2])

    found = compare(answers(new), answers(current), np.zeros(50, int))

    assert found.difference == pytest.approx(0.2)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.0569, 0.3404), abs=6e-4)


def test_a_model_that_is_as_good_is_seldom_turned_away_and_a_much_worse_one_always() -> None:
    random = np.random.default_rng(1)
    labels = np.zeros(300, int)

    def turned_away(accuracy: float) -> float:
        trials = [
            is_worse(answers(random.random(300) < accuracy), answers(random.random(300) < 0.8), labels)
            for _ in range(400)
        ]
        return float(np.mean(trials))

    assert turned_away(0.8) <= 0.05
    assert turned_away(0.6) >= 0.98


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.ones((0, 2)), np.zeros(0, int)),
        (np.ones((3, 2)), np.zeros(4, int)),
        (np.ones((3, 3)), np.zeros(3, int)),
        (np.ones((3, 2)), np.full(3, 2)),
        (np.full((3, 2), np.nan), np.zeros(3, int)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    with pytest.raises(HoldoutMismatch):
        evaluate(probabilities, labels, ("a", "b"))

"""The check of an int8 encoder: what it says of embeddings whose difference is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.learning import fidelity
from backend.learning.evaluate import Interval
from backend.learning.fidelity import Fidelity, measure

CLASSES = ("a", "b", "c")
ITEMS, LABELLED, DIMS = 300, 160, 12
NOBODY = np.zeros(ITEMS, bool)


@pytest.fixture(scope="module")
def exact() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(ITEMS, DIMS)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(exact: NDArray[np.float32]) -> NDArray[np.int64]:
    """What a plane says, with noise; the last third has none."""
    noise = np.random.default_rng(1).normal(size=(ITEMS, 3))
    named = (exact[:, :3] + 0.4 * noise).argmax(axis=1)
    named[LABELLED:] = -1
    return named


def test_the_same_embeddings_pass_and_what_the_encoder_was_trained_on_is_not_held_out(
    exact: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    found = measure(exact, exact.copy(), labels, CLASSES, np.arange(ITEMS) < 30, seed=0)

    assert found.problems == ()
    assert (found.items, found.labels, found.doubted) == (ITEMS, LABELLED - 30, ITEMS // 10)
    assert (found.overlap, found.accuracy) == (1.0, found.exact_accuracy)
    assert found.exact_accuracy > 0.7
    assert found.least_cosine == pytest.approx(1.0)
    assert found.interval.low < 0 < found.interval.high


def test_embeddings_of_another_kind_are_refused_for_both_reasons(
    exact: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    other = exact + np.random.default_rng(2).normal(size=exact.shape).astype(np.float32)

    found = measure(exact, other, labels, CLASSES, NOBODY, seed=0)

    assert found.accuracy < found.exact_accuracy - fidelity.MOST_LOST
    assert found.overlap < fidelity.LEAST_OVERLAP
    assert len(found.problems) == 2
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(other, axis=1)
    assert found.mean_cosine == pytest.approx(((exact * other).sum(axis=1) / norms).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("accuracy", "overlap", "count"), [(0.797, 0.95, 0), (0.9, 1.0, 0), (0.7969, 0.95, 1), (0.8, 0.9499, 1)]
)
def test_three_tenths_of_a_point_and_ninety_five_in_a_hundred_are_the_limits(
    accuracy: float, overlap: float, count: int
) -> None:
    found = Fidelity(5_000, 1_000, 0.8, accuracy, Interval(-0.01, 0.01), 500, overlap, 0.99, 0.9)

    assert len(found.problems) == count

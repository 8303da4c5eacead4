"""Labels saved, where the answer is known: chosen at random, chosen badly, and too few to tell."""

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.learning.saving import FEWEST, Saving, estimate_saving

DIMS, CLASSES = 16, 3


def draw(random: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Items of three classes that overlap."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, DIMS)) * 0.7
    classes = random.integers(0, CLASSES, count)
    return (centres[classes] + random.normal(size=(count, DIMS))).astype(np.float32), classes


def estimated(chosen: tuple[NDArray[np.float32], NDArray[np.int64]], drawn: int = 320) -> Saving | None:
    return estimate_saving(*chosen, *draw(np.random.default_rng(1), drawn), CLASSES)


@pytest.mark.parametrize("count", [60, 150])
def test_labels_drawn_at_random_save_nothing(count: int) -> None:
    found = estimated(draw(np.random.default_rng(2), count))

    assert found is not None
    assert (found.labels, found.low is not None) == (count, True)
    assert found.low is not None
    assert found.low <= count
    assert found.high is None or found.high >= count


def test_labels_of_ever_the_same_items_are_worth_few_drawn_ones() -> None:
    rows, classes = draw(np.random.default_rng(3), 12)

    found = estimated((np.repeat(rows, 20, axis=0), np.repeat(classes, 20)))

    assert found is not None
    assert found.drawn is not None
    assert found.drawn < 60 < found.labels == 240


def test_a_large_clean_set_is_worth_more_than_a_few_drawn_ones() -> None:
    found = estimated(draw(np.random.default_rng(4), 2_000))

    assert found is not None
    assert found.high is None or found.high > 400


def test_too_few_drawn_labels_tell_nothing_and_equal_data_tell_the_same() -> None:
    chosen = draw(np.random.default_rng(5), 50)

    assert estimated(chosen, FEWEST - 1) is None
    assert estimate_saving(*chosen, *draw(np.random.default_rng(1), 300), 101) is None
    assert estimated(chosen) == estimated(chosen)

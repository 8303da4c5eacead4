"""Drift is found where it was planted, and chance alarms as rarely as promised; measured over seeds."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from sklearn.datasets import load_digits

from backend.monitoring.drift import (
    FEWEST,
    compare_embeddings,
    discoveries,
    population_stability,
    strangeness,
)

DIMS = 96


def pool(random: np.random.Generator, count: int, classes: int = 5) -> NDArray[np.float32]:
    """Embeddings of five classes in a space of 96 dimensions, off the origin as a network's are."""
    centres = np.random.default_rng(7).normal(size=(10, DIMS)) * 0.8
    return (centres[random.integers(0, classes, count)] + random.normal(size=(count, DIMS)) + 3).astype(np.float32)


def alarms(make: Callable[[np.random.Generator], NDArray[np.float32]], trials: int = 60) -> float:
    found = []
    for trial in range(trials):
        random = np.random.default_rng(trial)
        found.append(compare_embeddings(pool(random, 200), make(random), seed=trial).is_drifted)
    return float(np.mean(found))


@pytest.mark.parametrize("count", [20, 100])
def test_on_an_unchanged_pool_at_most_one_scoring_in_twenty_alarms(count: int) -> None:
    assert alarms(lambda random: pool(random, count)) <= 0.05


def test_a_new_class_among_two_hundred_items_is_found() -> None:
    def with_new(random: np.random.Generator) -> NDArray[np.float32]:
        centre = np.random.default_rng(8).normal(size=DIMS) * 0.8
        new = (centre + random.normal(size=(40, DIMS)) + 3).astype(np.float32)
        return np.concatenate([pool(random, 160), new])

    assert alarms(with_new, trials=15) >= 0.95


def test_class_shares_that_move_are_found() -> None:
    assert alarms(lambda random: pool(random, 200, classes=3), trials=15) >= 0.95


def test_items_that_lost_their_sharpness_are_found() -> None:
    def blurred(random: np.random.Generator) -> NDArray[np.float32]:
        return (pool(random, 200) - 3) * 0.7 + 3

    assert alarms(blurred, trials=15) >= 0.95


def test_a_digit_that_was_not_there_is_found_and_digits_that_were_are_not() -> None:
    x, y = load_digits(return_X_y=True)
    known = x[y < 9]
    random = np.random.default_rng(0)
    order = random.permutation(len(known))
    reference, rest = known[order[:400]], known[order[400:]]

    same = compare_embeddings(reference, rest[:200])
    new = compare_embeddings(reference, np.concatenate([rest[:160], x[y == 9][:40]]))

    assert not same.is_drifted
    assert new.is_drifted
    assert new.energy > same.energy
    assert same.share < 0.05


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(20, 40), m=st.integers(20, 40), d=st.integers(1, 6))
def test_the_energy_is_the_definitions(seed: int, n: int, m: int, d: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(m, d)) + 0.5

    found = compare_embeddings(x, y)

    rows = np.concatenate([x, y])
    gaps = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    energy = 2 * gaps[:n, n:].mean() - gaps[:n, :n].mean() - gaps[n:, n:].mean()
    assert found.energy == pytest.approx(energy, abs=1e-6)
    assert 1 / 400 <= found.p <= 1


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_items_say_nothing(count: int) -> None:
    random = np.random.default_rng(0)

    assert compare_embeddings(pool(random, 100), pool(random, count) + 100).p == 1.0


def test_rows_that_are_broken_or_all_alike_do_not_break_the_test() -> None:
    random = np.random.default_rng(0)
    broken = pool(random, 60)
    broken[:10] = np.nan

    assert compare_embeddings(pool(random, 100), broken).new == 50
    assert not compare_embeddings(np.ones((30, 4)), np.ones((30, 4))).is_drifted


shares = st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 100), min_size=1)


@settings(max_examples=60, deadline=None)
@given(one=shares, other=shares)
def test_stability_is_symmetric_and_zero_for_equal_shares(one: dict[str, float], other: dict[str, float]) -> None:
    assert population_stability(one, other) == pytest.approx(population_stability(other, one), abs=1e-9)
    assert population_stability(one, {name: 3 * share for name, share in one.items()}) == pytest.approx(0, abs=1e-9)
    assert population_stability(one, other) >= 0


def test_stability_is_the_textbooks_sum() -> None:
    found = population_stability({"a": 50, "b": 50}, {"a": 70, "b": 30})

    assert found == pytest.approx(0.2 * np.log(0.7 / 0.5) - 0.2 * np.log(0.3 / 0.5))


@settings(max_examples=60, deadline=None)
@given(p=st.lists(st.floats(0, 1), max_size=20), rate=st.sampled_from([0.01, 0.05, 0.2]))
def test_discoveries_are_scipys(p: list[float], rate: float) -> None:
    oracle = (false_discovery_control(p) <= rate).tolist() if p else []

    assert discoveries(p, rate) == oracle


def test_a_rows_strangeness_is_the_share_of_the_sample_that_lies_nearer_to_the_rest() -> None:
    random = np.random.default_rng(4)
    sample, rows = random.normal(size=(30, 6)), random.normal(size=(12, 6)) * np.linspace(0, 3, 12)[:, None]
    own = [min(np.linalg.norm(a - b) for n, b in enumerate(sample) if n != m) for m, a in enumerate(sample)]
    gaps = [min(np.linalg.norm(row - one) for one in sample) for row in rows]

    found = strangeness((sample + 100).astype(np.float16), (rows + 100).astype(np.float32))
    exact = strangeness(sample, rows)

    assert exact == pytest.approx([np.mean([mine < gap for mine in own]) for gap in gaps])
    assert np.abs(found - exact).max() < 0.3  # halves around 100 have three digits
    assert exact[-1] == 1
    assert strangeness(sample[:5], rows).tolist() == [0] * 12

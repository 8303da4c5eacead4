"""The test of class shares: chance rarely alarms, a shift that matters does, and the statistic is the textbook's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, hypergeom
from sklearn.metrics import cohen_kappa_score

from backend.monitoring.agreement import cohen_kappa
from backend.monitoring.shares import compare_shares, recent_and_earlier

names = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=60)


def drawn(random: np.random.Generator, shares: list[float], count: int) -> list[str]:
    return [f"class {k}" for k in random.choice(len(shares), size=count, p=shares)]


@settings(max_examples=60, deadline=None)
@given(earlier=names, recent=names)
def test_the_statistic_is_scipys(earlier: list[str], recent: list[str]) -> None:
    classes = sorted(set(earlier) | set(recent))

    found = compare_shares(earlier, recent)

    if len(classes) < 2:
        assert (found.chi_square, found.p, found.is_shifted) == (0.0, 1.0, False)
        return
    table = [[part.count(name) for name in classes] for part in (earlier, recent)]
    oracle = chi2_contingency(table, correction=False)
    assert found.chi_square == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
    alike = [[share * len(other) for share in row] for row, other in zip(table, (recent, earlier), strict=True)]
    balanced = chi2_contingency(alike, correction=False).statistic / np.sum(alike)
    assert found.cramers_v == pytest.approx(np.sqrt(balanced), abs=1e-9)


def test_p_is_the_exact_chance_of_tables_at_least_as_far_away() -> None:
    earlier, recent = ["a"] * 300 + ["b"] * 300, ["a"] * 165 + ["b"] * 135

    found = compare_shares(earlier, recent)

    counts = np.arange(301)
    exact = hypergeom.pmf(counts, 900, 465, 300)[np.abs(counts - 155) >= 10].sum()
    assert found.p == pytest.approx(exact, abs=0.025)  # three standard errors of 1,999 resamples


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1] * 10, [0.97, 0.01, 0.01, 0.01]])
def test_without_a_change_at_most_one_test_in_twenty_alarms(shares: list[float]) -> None:
    random = np.random.default_rng(1)

    alarms = [
        compare_shares(drawn(random, shares, 150), drawn(random, shares, 100), seed=trial).is_shifted
        for trial in range(200)
    ]

    assert np.mean(alarms) <= 0.05


def test_over_all_rounds_of_a_project_at_most_one_in_twenty_alarms() -> None:
    random = np.random.default_rng(2)
    alarms = []
    for project in range(8):
        labels = drawn(random, [0.2] * 5, 400)
        for count in range(40, 400, 15):  # a round gives fifteen random labels
            earlier, recent = recent_and_earlier(labels[:count])
            alarms.append(compare_shares(earlier, recent, seed=project).is_shifted)

    assert np.mean(alarms) <= 0.05


def test_half_and_half_that_becomes_seventy_to_thirty_alarms() -> None:
    random = np.random.default_rng(3)

    alarms = [
        compare_shares(drawn(random, [0.5, 0.5], 300), drawn(random, [0.7, 0.3], 100)).is_shifted for _ in range(100)
    ]

    assert compare_shares(["a", "b"] * 100, ["a"] * 140 + ["b"] * 60).cramers_v == pytest.approx(0.204, abs=0.001)
    assert np.mean(alarms) >= 0.75


def test_a_significant_trifle_does_not_alarm() -> None:
    found = compare_shares(["a", "b"] * 5_000, ["a"] * 5_400 + ["b"] * 4_600)

    assert found.p <= 0.01
    assert not found.is_shifted


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=60))
def test_kappa_is_sklearns(pairs: list[tuple[str, str]]) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]

    found = cohen_kappa(first, second)

    if set(first) | set(second) == {first[0]}:
        assert found.kappa == 1.0
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
    assert found.low <= found.kappa <= found.high


def test_kappas_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(4)
    truth = 0.6  # two classes alike, agreement in 80 % of the items: kappa = (0.8 - 0.5) / 0.5
    held = []
    for _ in range(400):
        first = random.integers(0, 2, 80)
        second = np.where(random.random(80) < 0.8, first, 1 - first)
        found = cohen_kappa([str(one) for one in first], [str(one) for one in second])
        held.append(found.low <= truth <= found.high)

    assert 0.92 <= np.mean(held) <= 0.98

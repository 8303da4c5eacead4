"""Curves that go on, advice to stop, and an agent that drops an arm only where the intervals separate."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from strategies import stopping
from strategies.agent import Agent
from strategies.forecast import fit_curve, forecast, labels_for

LABELS = (50, 100, 200, 400, 800)


def power(labels: object, ceiling: float, drop: float, rate: float) -> np.ndarray:
    return ceiling - drop * (np.asarray(labels, float) / 800) ** -rate


@settings(deadline=None)
@given(st.floats(0.6, 0.98), st.floats(0.02, 0.15), st.floats(0.3, 1.0))
def test_a_power_law_is_found_again_and_goes_on(ceiling: float, drop: float, rate: float) -> None:
    curve = fit_curve(LABELS, power(LABELS, ceiling, drop, rate))

    np.testing.assert_allclose(
        curve.at([1_600, 3_200]), np.clip(power([1_600, 3_200], ceiling, drop, rate), 0, 1), atol=0.01
    )


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_forecast_is_an_accuracy_inside_its_interval_and_never_falls(accuracy: list[float]) -> None:
    labels = [50 * (at + 1) for at in range(len(accuracy))]

    curve = fit_curve(labels, accuracy).at(np.arange(1, 5_000, 100))
    found = forecast(labels, np.array([accuracy]), 5_000, holdout=500)

    assert (np.diff(curve) >= -1e-12).all()
    assert 0 <= found.interval[0] <= found.accuracy <= found.interval[1] <= 1


def test_the_interval_of_a_forecast_holds_the_truth() -> None:
    random = np.random.default_rng(0)
    truth = float(power(1_600, 0.85, 0.06, 0.5))
    hits = 0

    for draw in range(40):
        seeds = power(LABELS, 0.85, 0.06, 0.5) + random.normal(0, 0.01, (8, len(LABELS)))
        low, high = forecast(LABELS, seeds, 1_600, seed=draw).interval
        hits += low <= truth <= high

    assert hits >= 32


def test_labels_for_a_target_is_where_the_curve_reaches_it() -> None:
    accuracy = power(LABELS, 0.9, 0.08, 0.6)[None]

    needed = labels_for(LABELS, accuracy, 0.85, most=10_000)

    assert needed is not None
    curve = fit_curve(LABELS, accuracy[0])
    assert curve.at(needed) >= 0.85 > curve.at(needed - 1)
    assert labels_for(LABELS, accuracy, 0.95, most=10_000) is None


def test_kappa_is_sklearns_and_needs_enough_models() -> None:
    random = np.random.default_rng(0)
    rounds = [random.integers(0, 4, 300)]
    for _ in range(3):
        rounds.append(np.where(random.random(300) < 0.1, random.integers(0, 4, 300), rounds[-1]))

    found = stopping.kappa_average(rounds)

    expected = np.mean([cohen_kappa_score(one, other) for one, other in pairwise(rounds)])
    assert found.value == pytest.approx(expected)
    assert found.says_stop is False
    assert stopping.kappa_average([rounds[0]] * 4).says_stop is True
    assert stopping.kappa_average(rounds[:3]).says_stop is None


def test_the_other_criteria_say_what_they_see() -> None:
    sure, unsure = np.eye(4)[np.arange(20) % 4], np.full((20, 4), 0.25)

    assert stopping.overall_uncertainty(sure).says_stop is True
    assert stopping.overall_uncertainty(unsure).value == pytest.approx(1)
    assert stopping.classification_change(np.arange(4), np.array([0, 1, 2, 9])).value == 0.25
    assert stopping.budget(10, 20).says_stop is False
    flat = stopping.plateau(LABELS, [0.8] * 5, holdout=500, batch=50)
    rising = stopping.plateau(LABELS, [0.4, 0.5, 0.6, 0.7, 0.8], holdout=500, batch=400)
    assert (flat.says_stop, rising.says_stop) == (True, False)
    assert stopping.plateau(LABELS[:2], [0.5, 0.6], 500, 50).says_stop is None


def arms(spread: float, *ceilings: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        f"arm {at}": power(LABELS, ceiling, 0.06, 0.5) + random.normal(0, spread, (6, len(LABELS)))
        for at, ceiling in enumerate(ceilings)
    }


def test_the_agent_drops_only_what_is_separate_and_says_why() -> None:
    clear = Agent(1_600).decide(LABELS, arms(0.002, 0.9, 0.89, 0.8, 0.7))
    vague = Agent(1_600).decide(LABELS, arms(0.05, 0.9, 0.9, 0.9, 0.89))

    assert clear.best == "arm 0"
    assert set(clear.dropped) == {"arm 2", "arm 3"}
    assert "lies below that of arm 0" in clear.dropped["arm 3"]
    assert vague.dropped == {}


def test_the_agent_keeps_what_is_ahead_whatever_its_forecast() -> None:
    level, rising = [0.74, 0.76, 0.77, 0.775, 0.778], [0.40, 0.55, 0.65, 0.72, 0.77]
    curves = {name: np.array([curve] * 6) for name, curve in (("level", level), ("rising", rising))}

    decision = Agent(6_400).decide(LABELS, curves)

    level_at_most, rising_at_least = decision.forecasts["level"].interval[1], decision.forecasts["rising"].interval[0]
    assert level_at_most < rising_at_least
    assert decision.dropped == {}


def test_the_agent_stops_at_the_target_the_budget_or_the_plateau() -> None:
    curves = arms(0.002, 0.9, 0.85)

    assert "budget" in Agent(800).decide(LABELS, curves).stop
    assert "target" in Agent(1_600, target=0.8).decide(LABELS, curves).stop
    assert Agent(1_600).decide(LABELS, curves).stop == "only arm 0 is left"
    alike = arms(0.05, 0.9, 0.9)
    assert "would gain" in Agent(1_600, convergence=0.2).decide(LABELS, alike).stop
    assert Agent(1_600).decide(LABELS, alike).stop == ""

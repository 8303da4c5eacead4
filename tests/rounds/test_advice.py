"""What the curve advises: how many labels a target still takes, from holdout measurements alone."""

from typing import Any

import pytest

from backend.rounds.advice import FEWEST_STEPS, advise, to_target

LABELS = (50, 100, 200, 400, 800)


def accuracy(labels: float) -> float:
    return float(0.9 - 0.3 * (labels / 50) ** -0.5)


def measured(labels: tuple[int, ...] = LABELS, **metrics: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Metrics and lineages of versions on a known power law."""
    return [({"accuracy": accuracy(n), "labels": 500, **metrics}, {"labels": n}) for n in labels]


def test_the_target_is_as_far_as_the_power_law_says() -> None:
    target = 0.85

    told = to_target(measured(), target)

    more = int(told.says.split()[1].replace(",", ""))
    assert told.says_stop is False
    assert more == pytest.approx(50 * (0.3 / (0.9 - target)) ** 2 - LABELS[-1], rel=0.1)


def test_a_reached_target_may_stop_and_one_beyond_the_ceiling_is_never_reached() -> None:
    reached, beyond = (to_target(measured(), target) for target in (0.8, 0.95))

    assert (reached.says_stop, beyond.says_stop) == (True, False)
    assert "does not reach 95.0%" in beyond.says


def test_too_few_measurements_and_those_on_chosen_labels_tell_nothing() -> None:
    few, chosen = measured(LABELS[: FEWEST_STEPS - 1]), measured(source="cross-validation")

    told = [*advise(few, 50), *advise(chosen, 50), to_target(few, 0.8), to_target(chosen, 0.8)]

    assert [one.says_stop for one in told] == [None] * 4

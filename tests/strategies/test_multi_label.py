"""Where an item may have several labels: doubts label by label, and strategies that are not made for it are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from strategies import BadRequest, Request, Task, WrongTask, check_task, create, names, run
from tests.strategies.conftest import multi_label

MakePool = Callable[..., Request]


def entropy(p: float) -> float:
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)


MEASURES: dict[str, Callable[[float], float]] = {
    "entropy": entropy,
    "least_confidence": lambda p: 1 - max(p, 1 - p),
    "margin": lambda p: -abs(p - (1 - p)),
}


@pytest.mark.parametrize("over", ["mean", "max"])
@pytest.mark.parametrize("name", MEASURES)
def test_doubt_is_that_of_each_label_by_itself(name: str, over: str, pool: MakePool) -> None:
    request = multi_label(pool(80, budget=80))
    assert request.probabilities is not None

    selection = run(create(name, over=over), request)

    merge: Any = np.mean if over == "mean" else np.max
    wanted = {
        id_: float(merge([MEASURES[name](float(p)) for p in row]))
        for id_, row in zip(request.ids.tolist(), request.probabilities, strict=True)
    }
    assert selection.ids.tolist() == sorted(wanted, key=lambda id_: -wanted[id_])
    assert selection.utilities == pytest.approx([wanted[id_] for id_ in selection.ids.tolist()], abs=1e-5)


def test_the_doubt_of_one_label_is_ordered_alike_by_all_three_measures(pool: MakePool) -> None:
    request = multi_label(pool(200, budget=200))

    orders = [run(create(name, over="max"), request).ids.tolist() for name in MEASURES]

    assert orders[0][:100] == orders[1][:100] == orders[2][:100]


def test_margin_clusters_looks_at_the_smallest_mean_margins(pool: MakePool) -> None:
    request = multi_label(pool(500, budget=4))
    shortlist = set(run(create("margin"), replace(request, budget=20)).ids.tolist())

    selection = run(create("margin_clusters", shortlist=1), request)

    assert set(selection.ids.tolist()) <= shortlist
    assert "on average" in selection.reasons[0]


@pytest.mark.parametrize(("labels", "chosen"), [(49, "typiclust"), (50, "margin_clusters")])
def test_auto_takes_coverage_and_then_margins_and_says_why(labels: int, chosen: str, pool: MakePool) -> None:
    selection = run(create("auto"), multi_label(pool(labels=labels)))

    assert selection.diagnostics["chosen"] == chosen
    assert f"{labels} labelled items" in str(selection.diagnostics["policy"])


def test_what_is_not_made_for_the_task_is_refused_with_the_names_of_what_is(pool: MakePool) -> None:
    fitting = {name for name in names() if Task.MULTI_LABEL in create(name).tasks}
    assert {"random", "max_herding", "k_center_greedy", "typiclust", "auto", "margin", "stochastic"} <= fitting
    assert not {"badge", "bald", "class_balanced_margin", "deepfool"} & fitting

    for name in ("badge", "bald"):
        with pytest.raises(WrongTask, match="multi-label") as refusal:
            run(create(name), multi_label(pool()))
        assert all(fit in str(refusal.value) for fit in fitting)
    with pytest.raises(WrongTask):
        check_task(create("random_share", of="badge"), Task.MULTI_LABEL)


def test_a_row_without_any_label_is_a_prediction_and_one_beyond_one_is_none(pool: MakePool) -> None:
    request = multi_label(pool(30, budget=30))
    assert request.probabilities is not None
    chances = request.probabilities.copy()
    chances[4] = 0

    selection = run(create("entropy"), replace(request, probabilities=chances))

    assert selection.ids.tolist()[-1] == request.ids[4]
    chances[5, 2] = 1.5
    with pytest.raises(BadRequest, match="item-00005"):
        run(create("entropy"), replace(request, probabilities=chances))

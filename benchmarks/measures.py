"""What the curves of the evidence come to: labels saved, the worst interval, and the regret of the agent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.backtest.analysis import area, interval, labels_to
from backend.backtest.campaign import accuracies
from backend.backtest.halving import foretold
from backend.backtest.replay import Curve
from benchmarks.record import row
from strategies.agent import Agent

TARGETS = {
    "service_1000": 350, "service_2000": 600, "selection_1000": 700, "selection_2000": 1_250,
    "cold_start_100": 45, "long_tail_1000": 240, "long_tail_2000": 340, "duplicates_1000": 780,
}  # fmt: skip

Curves = Mapping[str, Sequence[Curve]]
_DRAWS = 1_000
_SPLITS = 20


def saving(id_: str, curves: Curves, arm: str, baseline: str, at: int) -> list[dict[str, Any]]:
    """Labels with which `arm` reaches what `baseline` reaches with `at`, of the mean curves; 95 % over the seeds.

    Nothing where an arm was not replayed, or nobody looked at `at`. Infinite where it is not reached.
    """
    if not {arm, baseline} <= curves.keys() or at not in curves[arm][0].labels:
        return []
    labels = curves[arm][0].labels
    ours, theirs, place = accuracies(curves[arm]), accuracies(curves[baseline]), labels.index(at)
    draws = [np.arange(len(ours)), *np.random.default_rng(0).integers(0, len(ours), (_DRAWS, len(ours)))]
    found = [labels_to(labels, ours[draw].mean(axis=0), float(theirs[draw].mean(axis=0)[place])) for draw in draws]
    needed = [float(2**31 if value is None else value) for value in found]  # JSON has no infinity
    low, high = np.quantile(needed[1:], (0.025, 0.975))
    what = f"labels of '{arm}' to reach '{baseline}' at {at}"
    more: dict[str, Any] = {"interval": [round(float(low)), round(float(high))], "seeds": len(ours)}
    return [row(id_, what, needed[:1], "labels", target=TARGETS.get(id_), **more)]


def gains(curves: Curves, arm: str, baseline: str) -> NDArray[np.float64]:
    """Differences (seeds,) of the areas under the budget curves."""
    labels = curves[arm][0].labels
    return area(labels, accuracies(curves[arm])) - area(labels, accuracies(curves[baseline]))


def never_worse(pools: Mapping[str, Curves], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The lowest 95 % lower bound of AUBC gained, over all pools and pairs of an arm and its baseline."""
    bounds = {
        f"{pool}: {arm}": round(interval(gains(curves, arm, baseline))[0], 5)
        for pool, curves in pools.items()
        for arm, baseline in pairs
        if arm in curves
    }
    where = min(bounds, key=lambda name: bounds[name])
    what = "AUBC of auto minus random's, lowest 95 % lower bound over data, pools and heads"
    more: dict[str, Any] = {"where": where, "bounds": bounds}
    return row("never_worse", what, [bounds[where]], "share", target=-0.003, better="higher", **more)


def agent_regret(pools: Mapping[str, Curves]) -> dict[str, Any]:
    """AUBC lost by what the agent chose from half of the seeds, against the strategy that was best over all seeds.

    Its choice is the one that `nextbatch backtest --agent` recommends: of the arms that it did not drop, the one with
    the largest area. The mean of 20 halves of each pool, and of the pools the worst.
    """
    lost: dict[str, float] = {}
    chosen: dict[str, dict[str, int]] = {}
    best: dict[str, str] = {}
    for pool, curves in pools.items():
        labels = next(iter(curves.values()))[0].labels
        accuracy = {name: accuracies(runs) for name, runs in curves.items()}
        areas = {name: float(area(labels, each).mean()) for name, each in accuracy.items()}
        seeds = len(next(iter(accuracy.values())))
        picks = []
        for split in range(_SPLITS):
            half = np.random.default_rng(split).permutation(seeds)[: max(2, seeds // 2)]
            seen = {name: each[half] for name, each in accuracy.items()}
            kept = foretold(labels, seen, Agent(labels[-1]))[-1].kept
            picks.append(max(kept, key=lambda name: float(area(labels, seen[name]).mean())))
        best[pool] = max(areas, key=lambda name: areas[name])
        lost[pool] = round(float(np.mean([areas[best[pool]] - areas[pick] for pick in picks])), 5)
        chosen[pool] = {name: picks.count(name) for name in sorted(set(picks), key=picks.count, reverse=True)}
    worst = max(lost, key=lambda pool: lost[pool])
    what = "AUBC of the best single strategy known afterwards minus that of the agent's choice, the worst pool"
    more: dict[str, Any] = {"where": worst, "pools": lost, "chosen": chosen, "best_afterwards": best}
    return row("agent_regret", what, [lost[worst]], "share", target=0.003, **more)

"""A backtest that spends its time on the arms that may still win: the agent drops others on the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.backtest.bench import Bench
from backend.backtest.campaign import Campaign, Progress, accuracies, run
from backend.backtest.replay import Curve
from strategies.agent import Agent, Decision

RUNGS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Halved:
    """The curves of the arms that went through to the end, and what was decided after each rung, in order."""

    curves: dict[str, list[Curve]]
    decisions: tuple[Decision, ...]

    def lines(self) -> list[str]:
        """What the agent did and why, for people."""
        told = []
        for decision in self.decisions:
            told += [f"{name} is dropped: {why}." for name, why in decision.dropped.items()]
            if decision.stop:
                told.append(f"It stops: {decision.stop}.")
        return told


def halve(
    bench: Bench, campaign: Campaign, agent: Agent, keep: Sequence[str], out: Path, jobs: int, progress: Progress
) -> Halved:
    """Replay all arms over a quarter of the schedule, drop those that are separate, and go on; `keep` is not dropped.

    Each rung replays from the first label on: rungs that double cost less than twice the last.
    """
    decisions: list[Decision] = []
    curves: dict[str, list[Curve]] = {}
    arms = campaign.arms
    for steps in _rungs(campaign.schedule):
        rung = replace(campaign, arms=arms, schedule=steps)
        curves = run(bench, rung, out / f"rung-{len(steps)}", jobs, progress)
        compared = {name: accuracies(runs) for name, runs in curves.items() if name not in keep}
        decisions.append(agent.decide(steps, compared))
        if decisions[-1].stop:
            break
        arms = tuple(arm for arm in arms if arm.title not in decisions[-1].dropped)
    return Halved(curves, tuple(decisions))


def foretold(
    schedule: Sequence[int], accuracy: Mapping[str, NDArray[np.float64]], agent: Agent
) -> tuple[Decision, ...]:
    """What `halve` would decide, from whole curves (seeds, steps) by arm: nothing is replayed."""
    decisions: list[Decision] = []
    arms = list(accuracy)
    for steps in _rungs(schedule):
        decisions.append(agent.decide(steps, {name: accuracy[name][:, : len(steps)] for name in arms}))
        if decisions[-1].stop:
            break
        arms = [name for name in arms if name not in decisions[-1].dropped]
    return tuple(decisions)


def _rungs(schedule: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(schedule[: max(1, math.ceil(share * len(schedule)))]) for share in RUNGS]

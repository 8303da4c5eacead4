"""The question of a backtest, from the labels to the advice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import sqlalchemy as sa

import strategies
from backend.backtest import manual, report
from backend.backtest.analysis import Verdict, judge, recommend
from backend.backtest.campaign import Campaign, Progress, accuracies, run, schedule
from backend.backtest.halving import halve
from backend.backtest.replay import Arm, Curve
from backend.backtest.source import open_bench
from backend.database import project_named, transaction
from backend.errors import UnknownSource
from backend.learning.committee import Source
from backend.rounds.arms import ArmCurve, keep
from backend.settings import EncoderSection
from strategies.agent import Agent


@dataclass(frozen=True)
class Question:
    """Which strategies to compare with which baseline, over how many seeds and labels; ``bald:laplace`` says where
    plausible heads come from.

    is_halved: let the agent drop arms on the way, and stop at the accuracy `target` if there is one.
    """

    strategies: tuple[str, ...]
    baseline: str = "random"
    seeds: int = 5
    batch: int = 50
    labels: int = 500
    is_halved: bool = False
    target: float | None = None


def compare(
    labels_of: str, question: Question, out: Path, jobs: int, say: Callable[[str], None], progress: Progress
) -> str:
    """Encode what is not encoded yet, replay, and write the report below `out`; the answer for people as text."""
    names = dict.fromkeys((question.baseline, *(name.strip() for name in question.strategies)))
    arms = tuple(_arm(name) for name in names if name)  # a wrong name is told before anything is encoded
    bench = open_bench(labels_of, out, EncoderSection(), say)
    steps = schedule(len(bench.labels), question.labels, question.batch)
    campaign = Campaign(arms, question.seeds, steps)
    baseline, told = campaign.arms[0].title, []
    if question.is_halved:
        agent = Agent(budget=steps[-1], target=question.target)
        halved = halve(bench, campaign, agent, (baseline,), out, jobs, progress)
        curves, told = halved.curves, halved.lines()
    else:
        curves = run(bench, campaign, out, jobs, progress)
    steps = curves[baseline][0].labels
    seconds = {name: np.concatenate([curve.seconds for curve in runs]) for name, runs in curves.items()}
    verdicts = judge(steps, {name: accuracies(runs) for name, runs in curves.items()}, seconds, baseline)
    advice = recommend(verdicts, baseline, steps[-1])
    facts = {"labels_of": labels_of, "pool": len(bench.labels), "test": len(bench.test_labels), "agent": told}
    facts |= asdict(question)
    report.write(out, curves, verdicts, advice, facts)
    _keep(labels_of, curves, verdicts, advice, facts, say)
    return "\n".join([report.table(verdicts, baseline), "", *told, advice, str(out / "curves.png")])


def _keep(
    labels_of: str,
    curves: Mapping[str, Sequence[Curve]],
    verdicts: Sequence[Verdict],
    advice: str,
    facts: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Let a project's learning page show what was found on its labels. The report is written already: a database that
    is away costs this alone."""
    if Path(labels_of).expanduser().exists():
        return
    found = []
    for verdict in verdicts:
        each = accuracies(curves[verdict.name])
        parts = (each.mean(axis=0), each.min(axis=0), each.max(axis=0))
        mean, low, high = (part.round(5).tolist() for part in parts)
        told = (verdict.gain, *verdict.gain_interval, verdict.labels)
        gains = [float(one) if one is not None and np.isfinite(one) else None for one in told]
        found.append(ArmCurve(verdict.name, list(curves[verdict.name][0].labels), mean, low, high, *gains))
    try:
        with transaction() as session:
            project = project_named(session, labels_of)
            keep(session, project.id, "backtest", str(facts["baseline"]), found, facts, advice)
    except sa.exc.SQLAlchemyError as problem:
        say(f"not kept for the project's pages: {type(problem).__name__}")


def _arm(name: str) -> Arm:
    """``margin``, a way of `manual.WAYS`, or ``bald:laplace``, plausible heads from there. Raises UnknownSource."""
    strategy, _, source = name.partition(":")
    if strategy not in manual.WAYS:
        strategies.create(strategy)
    if source and source not in get_args(Source):
        raise UnknownSource(name=name, source=source, known=", ".join(get_args(Source)))
    return Arm(strategy, name=name if source else "", samples=cast(Source, source or "bootstrap"))

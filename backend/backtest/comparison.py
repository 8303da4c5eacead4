"""The question of a backtest, from the labels to the advice."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from backend.backtest import report
from backend.backtest.analysis import judge, recommend
from backend.backtest.campaign import Campaign, Progress, accuracies, run, schedule
from backend.backtest.replay import Arm
from backend.backtest.source import open_bench
from backend.settings import EncoderSection


@dataclass(frozen=True)
class Question:
    """Which strategies to compare with which baseline, over how many seeds and labels."""

    strategies: tuple[str, ...]
    baseline: str = "random"
    seeds: int = 5
    batch: int = 50
    labels: int = 500


def compare(
    labels_of: str, question: Question, out: Path, jobs: int, say: Callable[[str], None], progress: Progress
) -> str:
    """Encode what is not encoded yet, replay, and write the report below `out`; the answer for people as text."""
    bench = open_bench(labels_of, out, EncoderSection(), say)
    names = dict.fromkeys((question.baseline, *(name.strip() for name in question.strategies)))
    steps = schedule(len(bench.labels), question.labels, question.batch)
    campaign = Campaign(tuple(Arm(name) for name in names if name), question.seeds, steps)
    curves = run(bench, campaign, out, jobs, progress)
    seconds = {name: np.concatenate([curve.seconds for curve in runs]) for name, runs in curves.items()}
    baseline = campaign.arms[0].title
    verdicts = judge(steps, {name: accuracies(runs) for name, runs in curves.items()}, seconds, baseline)
    advice = recommend(verdicts, baseline, steps[-1])
    facts = {"labels_of": labels_of, "pool": len(bench.labels), "test": len(bench.test_labels), **asdict(question)}
    report.write(out, curves, verdicts, advice, facts)
    return f"{report.table(verdicts, baseline)}\n\n{advice}\n{out / 'curves.png'}"

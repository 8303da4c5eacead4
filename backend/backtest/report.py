"""A backtest as a table, as JSON, and as pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.artefacts import whole
from backend.backtest.analysis import Verdict
from backend.backtest.campaign import accuracies
from backend.backtest.replay import Curve


def table(verdicts: Sequence[Verdict], baseline: str) -> str:
    """One line an arm, the best first."""
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [
        f"{'strategy':{width}}  mean accuracy  against {baseline} [95 %]      at the end  labels needed  a selection"
    ]
    for verdict in verdicts:
        low, high = verdict.gain_interval
        needed = "–" if verdict.labels is None else f"{verdict.labels:.0f}"
        lines.append(
            f"{verdict.name:{width}}  {verdict.area:>13.1%}  {verdict.gain:>+7.1%} [{low:+.1%}, {high:+.1%}]"
            f"{verdict.accuracy:>14.1%}{needed:>15}{verdict.seconds:>11.2f} s"
        )
    return "\n".join(lines)


def write(
    out: Path, curves: Mapping[str, Sequence[Curve]], verdicts: Sequence[Verdict], advice: str, facts: Mapping[str, Any]
) -> None:
    """report.json and curves.png below `out`."""
    rows = [
        asdict(verdict)
        | {
            "labels_spent": list(curves[verdict.name][0].labels),
            "accuracies": accuracies(curves[verdict.name]).round(5).tolist(),
        }
        for verdict in verdicts
    ]
    report = {**facts, "advice": advice, "arms": rows}
    with whole(out / "report.json") as file:
        file.write((json.dumps(report, indent=1) + "\n").encode())
    draw(out / "curves.png", curves, verdicts)


def draw(path: Path, curves: Mapping[str, Sequence[Curve]], verdicts: Sequence[Verdict]) -> None:
    """Mean accuracy against labels, an arm a line, the best first in the legend; the baseline is dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=120, layout="constrained")
    for number, verdict in enumerate(verdicts):
        runs = curves[verdict.name]
        mean = accuracies(runs).mean(axis=0)
        is_baseline = verdict.gain_interval == (0.0, 0.0)
        style: dict[str, Any] = (
            {"color": "black", "linestyle": "--"} if is_baseline else {"color": f"C{number % 10}", "linewidth": 1.6}
        )
        marker = "o" if number < 10 else "^"
        axes.plot(runs[0].labels, mean, marker=marker, markersize=3, label=verdict.name, **style)
    seeds = len(next(iter(curves.values())))
    axes.set(xlabel="labels spent", ylabel=f"test accuracy, mean of {seeds} seeds")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8, ncols=1 + len(verdicts) // 12)
    figure.savefig(path)
    plt.close(figure)

"""The curves of the evidence as one picture of small ones, and as tables in Markdown."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backend.backtest.analysis import judge
from backend.backtest.campaign import accuracies
from backend.backtest.replay import Curve

Pools = Mapping[str, Mapping[str, Sequence[Curve]]]


def grid(path: Path, pools: Pools, baseline: str, columns: int = 3) -> None:
    """Mean accuracy against labels, a small picture a pool, the same colour for an arm everywhere."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    columns = min(columns, len(pools))
    rows = math.ceil(len(pools) / columns)
    figure, places = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.1 * rows + 0.6), dpi=110, layout="constrained", squeeze=False
    )
    arms = list(dict.fromkeys(arm for curves in pools.values() for arm in curves))
    for place in places.flat[len(pools) :]:
        place.axis("off")
    for place, (pool, curves) in zip(places.flat, pools.items(), strict=False):
        for arm, runs in curves.items():
            colour = "black" if arm == baseline else f"C{arms.index(arm) % 10}"
            line = "--" if arm == baseline else "-" if arms.index(arm) < 10 else ":"
            accuracy = accuracies(runs)
            place.plot(runs[0].labels, accuracy.mean(axis=0), line, color=colour, linewidth=1.5, label=arm)
            low, high = np.quantile(accuracy, (0.1, 0.9), axis=0)
            place.fill_between(runs[0].labels, low, high, color=colour, alpha=0.08, linewidth=0)
        place.set_title(pool, fontsize=10)
        place.set_ylim(bottom=_floor(curves))
        place.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        place.grid(alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
    handles, names = max((place.get_legend_handles_labels() for place in places.flat), key=lambda found: len(found[1]))
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(2 * columns, 4, len(names)),
        frameon=False,
        fontsize=9,
        title="shaded: 80 % of seeds",
        title_fontsize=9,
    )
    for place in places.flat[max(0, len(pools) - columns) : len(pools)]:
        place.set_xlabel("labels spent")
    for place in places[:, 0]:
        place.set_ylabel("test accuracy")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def tables(parts: Mapping[str, Pools], baseline: str) -> str:
    """A page: for each part and pool a table, the best arm first."""
    lines = [
        "# All figures of the evidence",
        "",
        "Written by `make evidence`. Seeds are paired, intervals are 95 %, a bootstrap over seeds. Gains are",
        f"differences of mean accuracy over the labels spent to '{baseline}'; *labels* is what it took to reach",
        "what that arm reached at the end. [evidence.md](evidence.md) says what they mean.",
    ]
    for part, pools in parts.items():
        lines += ["", f"## {part}"] if pools else []
        for pool, curves in pools.items():
            spent, seeds = curves[baseline][0].labels[-1], len(curves[baseline])
            lines += ["", f"### {pool}, {spent:,} labels, {seeds} seeds", *_table(curves, baseline)]
    return "\n".join(lines) + "\n"


def _table(curves: Mapping[str, Sequence[Curve]], baseline: str) -> list[str]:
    accuracy = {arm: accuracies(runs) for arm, runs in curves.items()}
    seconds = {arm: np.concatenate([one.seconds for one in runs]) for arm, runs in curves.items()}
    lines = ["| arm | mean accuracy | gain, points | at the end | labels | a selection |", "|---|---|---|---|---|---|"]
    for verdict in judge(curves[baseline][0].labels, accuracy, seconds, baseline):
        low, high = (100 * bound for bound in verdict.gain_interval)
        gain = "0" if verdict.name == baseline else f"{100 * verdict.gain:+.1f} [{low:+.1f}, {high:+.1f}]"
        needed = "–" if verdict.labels is None else f"{verdict.labels:,.0f}"
        facts = (
            verdict.name,
            f"{verdict.area:.1%}",
            gain,
            f"{verdict.accuracy:.1%}",
            needed,
            f"{verdict.seconds:.2f} s",
        )
        lines.append(f"| {' | '.join(facts)} |")
    return lines


def _floor(curves: Mapping[str, Sequence[Curve]]) -> float:
    """Where the picture begins: what nine of ten arms are above at the third look."""
    starts = [float(accuracies(runs).mean(axis=0)[min(2, len(runs[0].labels) - 1)]) for runs in curves.values()]
    return max(0.0, float(np.quantile(starts, 0.1)) - 0.08)

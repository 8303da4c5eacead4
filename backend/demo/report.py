"""What the demo found: lines for the terminal, `report.json`, a picture of both curves, and the arm for the pages."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.database import transaction
from backend.rounds.arms import ArmCurve, keep


@dataclass(frozen=True)
class RoundLine:
    """One round that closed. Accuracies are shares; `interval` is the 95 % interval of `accuracy`.

    `in_order` is the share of the published batch that Label Studio served at exactly our rank.
    `seconds_to_next_batch` runs from the end of the quiet period until the next batch could be seen.
    """

    round: int
    labels: int
    accuracy: float
    interval: tuple[float, float]
    random_accuracy: float
    random_accuracies: tuple[float, ...]
    in_order: float
    seconds_to_next_batch: float
    strategy: str
    policy: str
    version: str
    batch: str


HEADER = "round  labels  accuracy [95 % interval]   random arm   served in our order   next batch after"


def line(row: RoundLine) -> str:
    low, high = row.interval
    return (
        f"{row.round:>5}  {row.labels:>6}  {row.accuracy:>7.1%} [{low:.1%}, {high:.1%}]"
        f"{row.random_accuracy:>14.1%}{row.in_order:>19.0%}{row.seconds_to_next_batch:>17.1f} s   {row.strategy}"
    )


def keep_arm(project_id: int, rows: Sequence[RoundLine]) -> None:
    """Let the project's pages draw the random arm beside its own curve."""
    drawn = [row.random_accuracies for row in rows]
    low, high = [min(one) for one in drawn], [max(one) for one in drawn]
    arm = ArmCurve("random", [row.labels for row in rows], [row.random_accuracy for row in rows], low, high)
    with transaction() as session:
        keep(session, project_id, "demo", arm.name, [arm], {"seeds": len(drawn[0])})


def write_json(path: Path, rows: Sequence[RoundLine], facts: dict[str, Any]) -> None:
    path.write_text(json.dumps({"rounds": [asdict(row) for row in rows], **facts}, indent=2) + "\n")


def draw(path: Path, rows: Sequence[RoundLine], holdout: int) -> None:
    """Holdout accuracy against labels: the loop with its interval, the random arm with its spread over seeds."""
    import matplotlib as mpl  # slow to import, and the worker must not pay for it

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    labels = [row.labels for row in rows]
    figure, axes = plt.subplots(figsize=(8, 5), dpi=120, layout="constrained")
    axes.fill_between(
        labels, [row.interval[0] for row in rows], [row.interval[1] for row in rows], alpha=0.15, color="tab:blue",
        label=f"95 % interval ({holdout} holdout items)", linewidth=0,
    )  # fmt: skip
    axes.plot(labels, [row.accuracy for row in rows], "o-", color="tab:blue", linewidth=2, label="nextbatch")
    seeds = len(rows[0].random_accuracies) if rows else 0
    axes.fill_between(
        labels, [min(row.random_accuracies) for row in rows], [max(row.random_accuracies) for row in rows],
        alpha=0.15, color="tab:gray", label=f"random, {seeds} seeds, lowest to highest", linewidth=0,
    )  # fmt: skip
    axes.plot(labels, [row.random_accuracy for row in rows], "s--", color="dimgray", label="random, mean")
    axes.set(xlabel="labels given by people", ylabel="accuracy on the random holdout", xticks=labels)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("What the labels bought", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
    plt.close(figure)

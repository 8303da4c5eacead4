"""Figures 5 and 6 of the ALaaS paper, from our runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Looks = Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]
_MARKS = ("o", "s", "^", "v", "D", "P", "X", "*", "<")


def budgets(path: Path, curves: Looks, full: Sequence[Mapping[str, float]]) -> None:
    """Top-1 and top-5 accuracy against the labels added; random below, all labels above."""
    plt = _pyplot()
    figure, places = plt.subplots(1, 2, figsize=(11, 4.4), dpi=110, layout="constrained")
    for place, what, title in zip(places, ("top1", "top5"), ("top-1", "top-5"), strict=True):
        for number, (name, by_budget) in enumerate(curves.items()):
            means = [100 * np.mean([look[what] for look in looks]) for looks in by_budget.values()]
            style = {"color": "black", "linestyle": "--"} if name == "random" else {"color": f"C{number}"}
            place.plot(list(by_budget), means, marker=_MARKS[number], markersize=4, linewidth=1.4, label=name, **style)
        place.axhline(
            100 * np.mean([look[what] for look in full]), color="grey", linestyle=":", label="all 50,000 labels"
        )
        place.set(xlabel="labels added to the first 10,000", ylabel=f"{title} accuracy, %")
        place.grid(alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    _save(plt, figure, path)


def throughput(path: Path, curves: Looks, budget: int, scanned: int, images_s: float) -> None:
    """Accuracy after the whole budget, and images a second: to encode and select, and to select alone."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110, layout="constrained")
    names = list(curves)
    looks = [curves[name][budget] for name in names]
    accuracy = [[100 * look["top1"] for look in each] for each in looks]
    place = np.arange(len(names))
    means = [np.mean(each) for each in accuracy]
    spread = [[mean - min(each) for mean, each in zip(means, accuracy, strict=True)],
              [max(each) - mean for mean, each in zip(means, accuracy, strict=True)]]  # fmt: skip
    left.bar(place, means, yerr=spread, color=["grey" if name == "random" else "C0" for name in names], capsize=3)
    values = [value for each in accuracy for value in each]
    left.set_ylim(min(values) - 0.5, max(values) + 0.3)
    left.set_ylabel(f"top-1 accuracy with {budget:,} more labels, %")
    seconds = np.array([np.mean([look["predict_s"] + look["select_s"] for look in each]) for each in looks])
    width = 0.4
    right.bar(place - width / 2, scanned / (scanned / images_s + seconds), width, label="files to picks", color="C1")
    right.bar(place + width / 2, scanned / seconds, width, label="stored embeddings to picks", color="C2")
    right.set_yscale("log")
    right.set_ylim(bottom=images_s / 10)
    right.set_ylabel("images a second")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    for axes in (left, right):
        axes.set_xticks(place, names, rotation=30)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="y")
    _save(plt, figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(plt: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)

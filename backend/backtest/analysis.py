"""What the curves of a backtest say: areas, paired intervals, labels to a target, and a recommendation in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 10_000
_SEED = 0


@dataclass(frozen=True)
class Verdict:
    """One arm against the baseline; intervals are 95 %, over seeds, paired by seed.

    area: mean accuracy over the labels spent (AUBC). gain: its difference to the baseline's. accuracy: the last one's
    mean. labels: what it took to reach the baseline's last accuracy, None where it did not. seconds: the median of a
    selection.
    """

    name: str
    area: float
    gain: float
    gain_interval: tuple[float, float]
    accuracy: float
    labels: float | None
    seconds: float

    @property
    def is_better(self) -> bool:
        return self.gain_interval[0] > 0

    @property
    def is_worse(self) -> bool:
        return self.gain_interval[1] < 0


def area(labels: Sequence[int], accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the budget curves (s, steps) by trapezoids, divided by the labels spent: (s,) in [0, 1]."""
    if len(labels) == 1:
        return accuracy[:, 0]
    spans = np.diff(np.asarray(labels, np.float64))
    heights = (accuracy[:, 1:] + accuracy[:, :-1]) / 2
    result: NDArray[np.float64] = heights @ spans / spans.sum()
    return result


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of values (s,)."""
    if len(values) < 2:
        return -np.inf, np.inf
    draws = np.random.default_rng(_SEED).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def labels_to(labels: Sequence[int], accuracy: NDArray[np.float64], target: float) -> float | None:
    """Where a mean curve (steps,) first reaches `target`, between steps by a straight line; None if it does not."""
    reached = np.flatnonzero(accuracy >= target)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(labels[0])
    share = (target - accuracy[at - 1]) / (accuracy[at] - accuracy[at - 1])
    return float(labels[at - 1] + share * (labels[at] - labels[at - 1]))


def judge(
    labels: Sequence[int],
    accuracy: Mapping[str, NDArray[np.float64]],
    seconds: Mapping[str, NDArray[np.float64]],
    baseline: str,
) -> list[Verdict]:
    """Arms by name, each with accuracies (seeds, steps), the same seeds in the same order; the best area first."""
    target = float(accuracy[baseline].mean(axis=0)[-1])
    base = area(labels, accuracy[baseline])
    verdicts = []
    for name, curves in accuracy.items():
        gains = area(labels, curves) - base
        verdicts.append(
            Verdict(
                name=name,
                area=float(area(labels, curves).mean()),
                gain=float(gains.mean()),
                gain_interval=(0.0, 0.0) if name == baseline else interval(gains),
                accuracy=float(curves.mean(axis=0)[-1]),
                labels=labels_to(labels, curves.mean(axis=0), target),
                seconds=float(np.median(seconds[name])),
            )
        )
    return sorted(verdicts, key=lambda verdict: (-verdict.area, verdict.name))


def recommend(verdicts: Sequence[Verdict], baseline: str, spent: int) -> str:
    """What to use, in words. Arms that cannot be told from the best are named: the cheapest of them will do."""
    better = [verdict for verdict in verdicts if verdict.is_better]
    if not better:
        return (
            f"Nothing here is better than {baseline} beyond noise. Use {baseline}, or repeat with more seeds or labels."
        )
    best = better[0]
    alike = [verdict for verdict in better[1:] if verdict.gain_interval[1] > best.gain_interval[0]]
    saved = "" if best.labels is None else f", with {best.labels:.0f} labels where {baseline} needed {spent}"
    low, high = best.gain_interval
    sentence = (
        f"Use {best.name}: {best.gain:+.1%} accuracy on average over the labels spent "
        f"(95 % interval {low:+.1%} to {high:+.1%}){saved}."
    )
    if alike:
        sentence += f" Not told apart from it: {', '.join(verdict.name for verdict in alike)}."
    worse = [verdict.name for verdict in verdicts if verdict.is_worse]
    if worse:
        sentence += f" Worse than {baseline}: {', '.join(worse)}."
    return sentence

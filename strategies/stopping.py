"""When to stop labelling: what several criteria say, side by side. Each is a signal with its reason, not a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from strategies.forecast import forecast


@dataclass(frozen=True)
class Signal:
    """One criterion: whether it would stop, its value, and what that says; `says_stop` None where it cannot tell."""

    criterion: str
    says_stop: bool | None
    value: float
    says: str


def kappa_average(predictions: Sequence[NDArray[np.integer]], threshold: float = 0.99, window: int = 3) -> Signal:
    """Agreement of successive models on one *fixed* random stop set: class indices (s,) a round, the latest last.

    Stops where Cohen's kappa between neighbouring rounds averages at least `threshold` over the last `window` pairs.
    Bloodgood & Vijay-Shanker, *Stopping active learning based on stabilizing predictions*, CoNLL 2009.
    """
    pairs = list(pairwise(predictions))[-window:]
    if len(pairs) < window:
        return Signal("kappa average", None, np.nan, f"it needs {window + 1} models; there are {len(predictions)}")
    value = float(np.mean([_kappa(one, other) for one, other in pairs]))
    says = f"the last {window + 1} models agree to {value:.3f} (kappa) on the stop set; {threshold} would stop"
    return Signal("kappa average", value >= threshold, value, says)


def classification_change(before: NDArray[np.integer], after: NDArray[np.integer], most: float = 0.0) -> Signal:
    """Share of the pool whose predicted class (n,) changed with the last model.

    Zhu, Wang & Hovy, *Multi-criteria-based strategy to stop active learning*, COLING 2008.
    """
    value = float((before != after).mean()) if len(after) else 0.0
    return Signal("classification change", value <= most, value, f"{value:.1%} of the predictions changed")


def overall_uncertainty(probabilities: NDArray[np.floating], most: float = 0.05) -> Signal:
    """Mean entropy of the pool's probabilities (n, K), as a share of log K. Zhu, Wang & Hovy, COLING 2008."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1)
    value = float(-(p * np.log(p)).sum(axis=1).mean() / np.log(max(2, p.shape[1]))) if len(p) else 0.0
    return Signal("overall uncertainty", value <= most, value, f"the pool's mean entropy is {value:.1%} of the largest")


def plateau(labels: Sequence[int], accuracy: Sequence[float], holdout: int, batch: int, least: float = 0.005) -> Signal:
    """Accuracy that the fitted learning curve still promises for the next `batch` labels, with its interval."""
    if len(labels) < 4:
        return Signal("forecast", None, np.nan, f"a curve needs 4 measurements; there are {len(labels)}")
    now = forecast(labels, np.array([accuracy]), labels[-1], holdout)
    then = forecast(labels, np.array([accuracy]), labels[-1] + batch, holdout)
    gain = then.accuracy - now.accuracy
    low, high = then.interval
    says = f"{batch} more labels promise {gain:+.1%}, to {then.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})"
    return Signal("forecast", gain < least, gain, says)


def budget(spent: int, allowed: int) -> Signal:
    """Labels spent of those allowed."""
    return Signal("budget", spent >= allowed, spent / max(1, allowed), f"{spent} of {allowed} labels are spent")


def _kappa(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    agreed = float((one == other).mean())
    classes = max(int(one.max()), int(other.max())) + 1
    shares = [np.bincount(side, minlength=classes) / len(side) for side in (one, other)]
    expected = float((shares[0] * shares[1]).sum())
    return 1.0 if expected >= 1 else (agreed - expected) / (1 - expected)

"""Where a learning curve goes: a power law through the accuracies so far, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 1_000
_FEWEST = 3
_RATES = np.geomspace(0.05, 2.0, 80)


@dataclass(frozen=True)
class LearningCurve:
    """``accuracy(n) = ceiling - drop * (n / scale) ** -rate``, rising, at most one."""

    ceiling: float
    drop: float
    rate: float
    scale: float

    def at(self, labels: ArrayLike) -> NDArray[np.float64]:
        """Accuracy after so many labels, in [0, 1]."""
        n = np.asarray(labels, np.float64) / self.scale
        accuracy: NDArray[np.float64] = np.clip(self.ceiling - self.drop * n**-self.rate, 0.0, 1.0)
        return accuracy


@dataclass(frozen=True)
class Forecast:
    """Accuracy expected after `labels` labels, with the 95 % interval."""

    labels: int
    accuracy: float
    interval: tuple[float, float]


def fit_curve(labels: Sequence[int], accuracy: ArrayLike) -> LearningCurve:
    """Least squares through accuracies (steps,) after `labels`, with more weight on later steps.

    With fewer than three steps the curve is flat at the last accuracy; where nothing rises, at the mean. The field's
    usual form: Figueroa et al., *Predicting sample size required for classification performance*, BMC 2012.
    """
    curve = np.asarray(accuracy, np.float64)[None]
    ceiling, drop, rate = (float(value[0]) for value in _fit_all(labels, curve))
    return LearningCurve(ceiling, drop, rate, float(labels[-1]))


def _fit_all(
    labels: Sequence[int], curves: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ceilings, drops and rates (c,) of curves (c, steps). For a given rate the best two others are in closed form."""
    if len(labels) < _FEWEST:
        still = np.zeros(len(curves))
        return curves[:, -1], still, still + 1.0
    n = np.asarray(labels, np.float64) / labels[-1]
    weight = n / n.sum()
    falls = n[None] ** -_RATES[:, None]  # (rates, steps)
    mean_fall, mean = falls @ weight, curves @ weight
    apart = falls - mean_fall[:, None]
    slope = -((curves - mean[:, None]) * weight) @ apart.T / (apart**2 @ weight)  # (c, rates)
    slope = np.maximum(slope, 0.0)
    ceiling = mean[:, None] + slope * mean_fall
    over = ceiling > 1  # on the border the drop is the best one below a ceiling of one
    bounded = np.maximum(((1 - curves) * weight) @ falls.T / (falls**2 @ weight), 0.0)
    slope, ceiling = np.where(over, bounded, slope), np.minimum(ceiling, 1.0)
    fitted = ceiling[:, :, None] - slope[:, :, None] * falls
    error = ((fitted - curves[:, None]) ** 2 * weight).sum(axis=2)
    rows, best = np.arange(len(curves)), error.argmin(axis=1)
    return ceiling[rows, best], slope[rows, best], _RATES[best]


def forecast(
    labels: Sequence[int], accuracy: NDArray[np.float64], at: int, holdout: int = 0, seed: int = 0
) -> Forecast:
    """The accuracy after `at` labels, from accuracies (seeds, steps), or of one run (1, steps).

    The interval resamples the seeds where there are several; of one run it resamples a holdout of `holdout` items,
    whose chance all steps share half of. It does not cover a curve that bends away from the power law.
    """
    random = np.random.default_rng(seed)
    if len(accuracy) > 1:
        draws = accuracy[random.integers(0, len(accuracy), (_DRAWS, len(accuracy)))].mean(axis=1)
    else:
        error = np.sqrt(accuracy * (1 - accuracy) / max(1, holdout) / 2)
        draws = accuracy + error * (random.normal(size=(_DRAWS, 1)) + random.normal(size=(_DRAWS, accuracy.shape[1])))
    curves = np.concatenate([accuracy.mean(axis=0)[None], np.clip(draws, 0, 1)])
    ceiling, drop, rate = _fit_all(labels, curves)
    ends = np.clip(ceiling - drop * (at / labels[-1]) ** -rate, 0, 1)
    expected = float(ends[0])
    low, high = np.quantile(ends[1:], (0.025, 0.975))
    return Forecast(at, expected, (min(float(low), expected), max(float(high), expected)))


def labels_for(labels: Sequence[int], accuracy: NDArray[np.float64], target: float, most: int) -> int | None:
    """How many labels the curve through accuracies (seeds, steps) needs for `target`; None if more than `most`."""
    curve = fit_curve(labels, accuracy.mean(axis=0))
    if curve.at(most) < target:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if curve.at(middle) >= target else (middle + 1, high)
    return low

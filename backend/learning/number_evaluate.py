"""How good a model of numbers is, how sure we may be of it, and whether a new one is worse than the old one."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from backend.errors import HoldoutMismatch
from backend.learning.evaluate import Comparison, Interval, mean_error, percentiles, wilson

_RESAMPLES = 1_000
_WORSE = 0.025
_ALIKE = 1e-9  # in the labels' unit; what rounding of float32 sums may differ by
_Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class NumberEvaluation:
    """Measures on ``labels`` labelled items: mean absolute and root mean square error, in the labels' own unit, and R².

    Intervals are percentiles of a bootstrap over items. R² is None where all labels are alike. ``inside`` is the share
    of labels within 1.96 predictive deviations, which should be 0.95. ``source`` is that of `evaluate.Evaluation`.
    """

    source: Literal["holdout", "cross-validation"]
    labels: int
    mae: float
    mae_interval: Interval
    rmse: float
    rmse_interval: Interval
    r2: float | None
    r2_interval: Interval | None
    inside: float
    inside_interval: Interval

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(asdict(self), allow_nan=False)


def evaluate_numbers(
    said: NDArray[Any], truth: NDArray[Any], source: Literal["holdout", "cross-validation"] = "holdout"
) -> NumberEvaluation:
    """Measure numbers and their deviations ``said`` (n, 2) against ``truth`` (n,). Raises HoldoutMismatch."""
    _check(said, truth)
    n, error, drawn = len(truth), said[:, 0].astype(np.float64) - truth, draws(len(truth))
    absolute, square = drawn @ np.abs(error), drawn @ np.square(error)
    spread = drawn @ np.square(truth) - np.square(drawn @ truth)
    variance = float(truth.var())
    varied = spread > 1e-12 * max(variance, 1e-300)
    within = int(is_within(said, truth).sum())
    return NumberEvaluation(
        source=source,
        labels=n,
        mae=float(np.abs(error).mean()),
        mae_interval=percentiles(absolute),
        rmse=float(np.sqrt(np.square(error).mean())),
        rmse_interval=percentiles(np.sqrt(square)),
        r2=1 - float(np.square(error).mean()) / variance if variance else None,
        r2_interval=percentiles(1 - square[varied] / spread[varied]) if variance else None,
        inside=within / n,
        inside_interval=wilson(within, n),
    )


def draws(n: int) -> NDArray[np.float64]:
    """The share that each of n items has in 1,000 bootstrap resamples, (1000, n); always the same."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n


def is_within(said: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels (n,) are within 1.96 predictive deviations of what is said of them, (n, 2)."""
    return np.asarray(np.abs(said[:, 0].astype(np.float64) - truth) <= _Z * said[:, 1])


def compare_numbers(new: NDArray[Any], current: NDArray[Any], truth: NDArray[Any]) -> Comparison:
    """Pair two models' numbers (n,) on the same labels (n,): absolute errors, by Student's t.

    Student, *The probable error of a mean*, Biometrika 1908 (the paired test). Raises HoldoutMismatch.
    """
    if not len(truth):
        raise HoldoutMismatch(problem="it has no labels")
    one, other = (np.abs(said.astype(np.float64) - truth) for said in (new, current))
    gaps = one - other
    gaps[np.abs(gaps) <= _ALIKE] = 0.0
    difference, (error, half) = float(gaps.mean()), mean_error(gaps)
    away = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    freedom = max(len(gaps) - 1, 1)
    p_better, p_worse = (float(p) for p in (t.cdf(away, freedom), t.sf(away, freedom)))
    return Comparison(
        labels=len(gaps),
        difference=difference,
        interval=Interval(difference - half, difference + half),
        won=int((gaps < 0).sum()),
        lost=int((gaps > 0).sum()),
        p_better=p_better,
        p_worse=p_worse,
        is_worse=p_worse < _WORSE,
        measure="mean absolute error",
    )


def is_worse(new: NDArray[Any], current: NDArray[Any], truth: NDArray[Any]) -> bool:
    """Whether a new model's numbers (n,) are farther off than chance would explain. See `compare_numbers`."""
    return compare_numbers(new, current, truth).is_worse


def _check(said: NDArray[Any], truth: NDArray[Any]) -> None:
    if not len(truth):
        raise HoldoutMismatch(problem="it has no labels")
    if said.shape != (len(truth), 2):
        raise HoldoutMismatch(problem=f"{len(truth)} labels, but numbers of the shape {said.shape}")
    if not (np.isfinite(said).all() and np.isfinite(truth).all()):
        raise HoldoutMismatch(problem="a number is not finite; leave out items without an embedding")

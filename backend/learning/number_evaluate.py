"""How good a model of numbers is, how sure we may be of it, and whether a new one is worse than the old one."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, ttest_rel

from backend.errors import HoldoutMismatch
from backend.learning.evaluate import Interval, wilson

_RESAMPLES = 1_000
_WORSE = 0.025
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
    n, error = len(truth), said[:, 0].astype(np.float64) - truth
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64) / n
    absolute, square = drawn @ np.abs(error), drawn @ np.square(error)
    spread = drawn @ np.square(truth) - np.square(drawn @ truth)
    variance = float(truth.var())
    varied = spread > 1e-12 * max(variance, 1e-300)
    within = int((np.abs(error) <= _Z * said[:, 1]).sum())
    return NumberEvaluation(
        source=source,
        labels=n,
        mae=float(np.abs(error).mean()),
        mae_interval=_percentiles(absolute),
        rmse=float(np.sqrt(np.square(error).mean())),
        rmse_interval=_percentiles(np.sqrt(square)),
        r2=1 - float(np.square(error).mean()) / variance if variance else None,
        r2_interval=_percentiles(1 - square[varied] / spread[varied]) if variance else None,
        inside=within / n,
        inside_interval=wilson(within, n),
    )


def is_worse(new: NDArray[Any], current: NDArray[Any], truth: NDArray[Any]) -> bool:
    """Whether a new model's numbers (n,) are farther off than those of the current one by more than chance.

    By the paired t test of absolute errors, one-sided at 2.5 %.
    """
    one, other = (np.abs(said.astype(np.float64) - truth) for said in (new, current))
    if np.allclose(one, other, rtol=0, atol=1e-9):
        return False
    return bool(ttest_rel(one, other, alternative="greater").pvalue < _WORSE)


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _check(said: NDArray[Any], truth: NDArray[Any]) -> None:
    if not len(truth):
        raise HoldoutMismatch(problem="it has no labels")
    if said.shape != (len(truth), 2):
        raise HoldoutMismatch(problem=f"{len(truth)} labels, but numbers of the shape {said.shape}")
    if not (np.isfinite(said).all() and np.isfinite(truth).all()):
        raise HoldoutMismatch(problem="a number is not finite; leave out items without an embedding")

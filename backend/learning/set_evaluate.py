"""How good a model of label sets is, how sure we may be of it, and whether a new one is worse than the old one."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from backend.errors import HoldoutMismatch
from backend.learning.evaluate import Interval, Measured, calibration_error, percentiles, wilson

_RESAMPLES = 1_000
_WORSE = 0.025
_BINS = 15
_HALF = 0.5


@dataclass(frozen=True)
class LabelReport:
    """One label on the evaluated items. Precision is None if it was never told, recall if nobody gave it.

    Intervals are Wilson's; [0, 1] where nothing is known.
    """

    name: str
    labels: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval


@dataclass(frozen=True)
class SetEvaluation:
    """Measures on ``labels`` labelled items; ``log_loss`` in nats a label, the others in [0, 1].

    ``accuracy`` is the share of items whose whole set is right (subset accuracy). ``micro_f1`` counts every label of
    every item alike, ``macro_f1`` is the mean over labels that were given or told; their intervals are percentiles of a
    bootstrap over items. ``source`` is that of `evaluate.Evaluation`.
    """

    source: Literal["holdout", "cross-validation"]
    labels: int
    accuracy: float
    accuracy_interval: Interval
    micro_f1: float
    micro_f1_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    log_loss: float
    calibration_error: float
    classes: tuple[LabelReport, ...]

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)


def evaluate_sets(
    probabilities: NDArray[Any],
    told: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    classes: tuple[str, ...],
    source: Literal["holdout", "cross-validation"] = "holdout",
) -> SetEvaluation:
    """Measure probabilities (n, K), and the labels ``told`` by them, against ``truth``, both (n, K).

    Raises HoldoutMismatch if they do not fit. O(resamples · n · K).
    """
    _check(probabilities, told, truth, len(classes))
    counts = np.stack([told & truth, told & ~truth, ~told & truth]).astype(np.float32)  # (3, n, K)
    hits, over, missed = counts.sum(axis=1).astype(np.int64)
    right = int((told == truth).all(axis=1).sum())
    drawn = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=_RESAMPLES)
    resampled = np.stack([drawn.astype(np.float32) @ one for one in counts])  # (3, resamples, K)
    chances = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    both = np.stack([1 - chances.reshape(-1), chances.reshape(-1)], axis=1)
    return SetEvaluation(
        source=source,
        labels=len(truth),
        accuracy=right / len(truth),
        accuracy_interval=wilson(right, len(truth)),
        micro_f1=float(_f1(*counts.sum(axis=(1, 2), dtype=np.float64))),
        micro_f1_interval=percentiles(_f1(*resampled.sum(axis=2, dtype=np.float64))),
        macro_f1=float(_macro(np.stack([hits, over, missed]).astype(np.float64))),
        macro_f1_interval=percentiles(_macro(resampled.astype(np.float64))),
        log_loss=float(-np.log(np.where(truth, chances, 1 - chances)).mean()),
        calibration_error=calibration_error(both, truth.reshape(-1).astype(np.int64)),
        classes=tuple(
            LabelReport(
                name,
                int(hits[at] + missed[at]),
                float(hits[at] / (hits[at] + over[at])) if hits[at] + over[at] else None,
                wilson(int(hits[at]), int(hits[at] + over[at])),
                float(hits[at] / (hits[at] + missed[at])) if hits[at] + missed[at] else None,
                wilson(int(hits[at]), int(hits[at] + missed[at])),
            )
            for at, name in enumerate(classes)
        ),
    )


def micro_f1(told: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Measured:
    """Of labels told and true, both (n, K), with a bootstrap's interval. O(n · (K + resamples))."""
    counts = _counts(told, truth)
    drawn = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=_RESAMPLES)
    return Measured(float(_f1(*(one.sum() for one in counts))), percentiles(_f1(*(drawn @ one for one in counts))))


@dataclass(frozen=True, eq=False)
class Resampled:
    """Measures of 1,000 draws of n from n items, (1000,) each."""

    macro_f1: NDArray[np.float64]
    log_loss: NDArray[np.float64]
    calibration_error: NDArray[np.float64]


def resample_sets(
    probabilities: NDArray[Any], told: NDArray[np.bool_], truth: NDArray[np.bool_], seed: int = 0
) -> Resampled:
    """The same seed draws the same items for two models. O(resamples · n · K)."""
    n, k = truth.shape
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
    counts = np.stack([drawn @ one for one in (told & truth, told & ~truth, ~told & truth)])
    chances = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    losses = -np.log(np.where(truth, chances, 1 - chances)).mean(axis=1)
    sure = np.maximum(chances, 1 - chances)
    gaps = np.zeros((n, _BINS))
    bins = np.clip(np.ceil(sure * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    np.add.at(gaps, (np.arange(n)[:, None], bins), ((chances > _HALF) == truth) - sure)
    return Resampled(_macro(counts), drawn @ losses / n, np.abs(drawn @ gaps).sum(axis=1) / (n * k))


def membership(names: Sequence[Sequence[str]], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which of `classes` (K,) stand among each item's names, (n, K)."""
    place = {name: index for index, name in enumerate(classes)}
    found = np.zeros((len(names), len(place)), dtype=bool)
    for row, own in enumerate(names):
        found[row, [place[name] for name in own if name in place]] = True
    return found


def is_worse(new: NDArray[np.bool_], current: NDArray[np.bool_], truth: NDArray[np.bool_]) -> bool:
    """Whether the labels that a new model tells, (n, K), are worse than those of the current one by more than chance.

    By the paired t test of each item's F1, one-sided at 2.5 %; an item without labels, rightly told, has 1.
    """
    one, other = (_f1(*_counts(told, truth)) for told in (new, current))
    if np.array_equal(one, other):
        return False
    return bool(ttest_rel(one, other, alternative="less").pvalue < _WORSE)


def _counts(told: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Hits, false alarms and misses of each item, (n,) each."""
    parts = (told & truth, told & ~truth, ~told & truth)
    return tuple(part.sum(axis=1).astype(np.float64) for part in parts)


def _f1(hits: Any, over: Any, missed: Any) -> NDArray[np.float64]:
    """Elementwise; 1 where there was nothing to find and nothing was told."""
    among = 2 * hits + over + missed
    found: NDArray[np.float64] = np.where(among > 0, 2 * hits / np.maximum(among, 1e-300), 1.0)
    return found


def _macro(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean F1 over labels, the last axis of counts (3, ..., K), that were given or told; 1 where there are none."""
    is_there = counts.sum(axis=0) > 0
    total: NDArray[np.float64] = np.where(is_there, _f1(*counts), 0.0).sum(axis=-1)
    number = is_there.sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), 1.0)


def _check(probabilities: NDArray[Any], told: NDArray[np.bool_], truth: NDArray[np.bool_], classes: int) -> None:
    if not len(truth):
        raise HoldoutMismatch(problem="it has no labels")
    shapes = {probabilities.shape, told.shape, truth.shape}
    if shapes != {(len(truth), classes)}:
        raise HoldoutMismatch(problem=f"{classes} labels, but arrays of the shapes {sorted(shapes)}")
    if not np.isfinite(probabilities).all():
        raise HoldoutMismatch(problem="a probability is not finite; leave out items without an embedding")

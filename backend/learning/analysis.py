"""Beyond one average: every measure with its interval, reliability, confusion, the worst slices, small changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from backend.learning.evaluate import Interval, Measured, evaluate, percentiles, wilson
from backend.learning.sensitivity import Change
from backend.learning.slices import Members, Slice, find_slices

RESAMPLES = 1_000
BINS = 15
MOST_CELLS = 20
_AT_ONCE = 100  # resamples whose weights are in memory together


@dataclass(frozen=True)
class ClassMeasures:
    """One class: how many items are labelled with it, how many it was predicted for. None where one of them is 0."""

    name: str
    labels: int
    predicted: int
    precision: Measured | None
    recall: Measured | None


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence is in (low, high]: what they claimed on average, and how many of them were right."""

    low: float
    high: float
    items: int
    confidence: float
    accuracy: Measured


@dataclass(frozen=True)
class Cell:
    """Items labelled `label` and predicted as `predicted`; `share` is of all items with that label."""

    label: str
    predicted: str
    items: int
    share: Measured


@dataclass(frozen=True)
class Analysis:
    """A version on ``labels`` items of the random holdout.

    ``chance_calibration_error`` is what the calibration error of a perfectly calibrated model exceeds in 5 % of draws
    of so many labels; below it nothing is known to be wrong. ``confusions`` are the twenty largest off the diagonal,
    the most items first. ``slices`` come worst first, ``changes`` as far as they were measured.
    """

    labels: int
    accuracy: Measured
    macro_f1: Measured
    log_loss: Measured
    calibration_error: Measured
    chance_calibration_error: float
    classes: tuple[ClassMeasures, ...]
    reliability: tuple[Bin, ...]
    confusions: tuple[Cell, ...]
    slices: tuple[Slice, ...] = ()
    changes: tuple[Change, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON knows it; `read` turns it back."""
        return asdict(self)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Analysis":
        return _FORM.validate_python(stored)

    @property
    def measures(self) -> tuple[tuple[str, Measured], ...]:
        """The measures of all items, by title."""
        return (
            ("accuracy", self.accuracy),
            ("macro F1", self.macro_f1),
            ("log loss", self.log_loss),
            ("calibration error", self.calibration_error),
        )


_FORM = TypeAdapter(Analysis)


def analyse(
    probabilities: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    classes: tuple[str, ...],
    members: Sequence[Members] = (),
    seed: int = 0,
) -> Analysis:
    """Measure probabilities (n, K) against class indices (n,), all over and on each of `members`.

    Shares have Wilson's interval. Macro F1 and log loss have the percentile bootstrap's, the calibration error the
    basic bootstrap's, because it is biased upwards, and more so in a resample; that reaches down to 0 wherever chance
    explains the error, where the bootstrap alone held the truth in six of ten trials. O(resamples · n · K).
    Raises HoldoutMismatch where the arrays do not fit.

    Efron & Tibshirani, *An introduction to the bootstrap*, 1993; Bröcker & Smith, *Increasing the reliability of
    reliability diagrams*, Weather and Forecasting 2007 (consistency resampling, for the error that chance explains).
    """
    found = evaluate(probabilities, labels, classes)
    n, predicted = len(labels), probabilities.argmax(axis=1)
    correct, generator = predicted == labels, np.random.default_rng(seed)
    resampled = resample(probabilities, labels, generator)
    error, by_chance = found.calibration_error, _by_chance(probabilities, generator)
    return Analysis(
        labels=n,
        accuracy=share(int(correct.sum()), n),
        macro_f1=Measured(found.macro_f1, percentiles(resampled.macro_f1)),
        log_loss=Measured(found.log_loss, percentiles(resampled.log_loss)),
        calibration_error=Measured(error, _of_calibration(error, resampled.calibration_error, by_chance)),
        chance_calibration_error=by_chance,
        classes=_classes(labels, predicted, classes),
        reliability=_reliability(probabilities.max(axis=1), correct),
        confusions=_confusions(labels, predicted, classes),
        slices=find_slices(correct, members),
    )


@dataclass(frozen=True, eq=False)
class Resampled:
    """Measures of bootstrap resamples of the items, (resamples,) each."""

    macro_f1: NDArray[np.float64]
    log_loss: NDArray[np.float64]
    calibration_error: NDArray[np.float64]


def resample(probabilities: NDArray[Any], labels: NDArray[Any], generator: np.random.Generator) -> Resampled:
    """Measures of 1,000 draws of n from n items. The same generator's state draws the same items for two models."""
    n, k = probabilities.shape
    predicted, rows = probabilities.argmax(axis=1), np.arange(n)
    is_label, is_named = np.zeros((n, k)), np.zeros((n, k))
    is_label[rows, labels], is_named[rows, predicted] = 1, 1
    loss = -np.log(np.clip(probabilities[rows, labels].astype(np.float64), 1e-12, 1.0))
    gaps = np.zeros((n, BINS))
    confidence = probabilities.max(axis=1).astype(np.float64)
    gaps[rows, _bins(confidence)] = (predicted == labels) - confidence
    f1, losses, errors = [], [], []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=_AT_ONCE).astype(np.float64)
        total = weights @ is_label + weights @ is_named
        twice = np.divide(2 * (weights @ (is_label * is_named)), total, out=np.zeros_like(total), where=total > 0)
        f1.append(twice.sum(axis=1) / (total > 0).sum(axis=1))
        losses.append(weights @ loss / n)
        errors.append(np.abs(weights @ gaps).sum(axis=1) / n)
    return Resampled(np.concatenate(f1), np.concatenate(losses), np.concatenate(errors))


def share(hits: int, total: int) -> Measured:
    """`hits` of `total` > 0, with Wilson's interval."""
    return Measured(hits / total, wilson(hits, total))


def _of_calibration(error: float, resampled: NDArray[np.float64], by_chance: float) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(0.0 if error <= by_chance else max(0.0, float(2 * error - high)), max(0.0, float(2 * error - low)))


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _by_chance(probabilities: NDArray[Any], generator: np.random.Generator) -> float:
    """The 95 % quantile of the calibration error where each prediction is right as often as it claims."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins, errors = _bins(confidence), np.empty(RESAMPLES)
    for at in range(RESAMPLES):
        correct = generator.uniform(size=len(confidence)) < confidence
        errors[at] = np.abs(np.bincount(bins, weights=correct - confidence, minlength=BINS)).sum()
    return float(np.quantile(errors / len(confidence), 0.95))


def _classes(labels: NDArray[Any], predicted: NDArray[Any], names: tuple[str, ...]) -> tuple[ClassMeasures, ...]:
    k = len(names)
    hits = np.bincount(labels[labels == predicted], minlength=k)
    labelled, named = np.bincount(labels, minlength=k), np.bincount(predicted, minlength=k)
    return tuple(
        ClassMeasures(
            name,
            int(labelled[at]),
            int(named[at]),
            share(int(hits[at]), int(named[at])) if named[at] else None,
            share(int(hits[at]), int(labelled[at])) if labelled[at] else None,
        )
        for at, name in enumerate(names)
    )


def _reliability(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """The bins that hold something, from low confidence to high."""
    bins = _bins(confidence.astype(np.float64))
    found = []
    for at in np.unique(bins):
        inside = bins == at
        accuracy = share(int(correct[inside].sum()), int(inside.sum()))
        mean = float(confidence[inside].mean())
        found.append(Bin(at / BINS, (at + 1) / BINS, int(inside.sum()), mean, accuracy))
    return tuple(found)


def _confusions(labels: NDArray[Any], predicted: NDArray[Any], names: tuple[str, ...]) -> tuple[Cell, ...]:
    k, wrong = len(names), labels != predicted
    pairs, counts = np.unique(labels[wrong] * k + predicted[wrong], return_counts=True)
    labelled = np.bincount(labels, minlength=k)
    order = np.argsort(-counts, kind="stable")[:MOST_CELLS]
    return tuple(
        Cell(names[pair // k], names[pair % k], int(count), share(int(count), int(labelled[pair // k])))
        for pair, count in zip(pairs[order], counts[order], strict=True)
    )

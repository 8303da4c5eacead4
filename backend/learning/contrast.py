"""Two models on the same labels, measure by measure and class by class, each difference with its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from backend.learning.analysis import resample
from backend.learning.evaluate import Comparison, Measured, compare, compare_right, evaluate, percentiles
from backend.learning.number_evaluate import compare_numbers, draws, evaluate_numbers, is_within
from backend.learning.set_evaluate import evaluate_sets, resample_sets
from backend.learning.slices import FALSE_DISCOVERIES


@dataclass(frozen=True)
class ClassContrast:
    """New minus current recall of one class; `is_real` where chance does not explain it, all classes considered."""

    name: str
    labels: int
    recall: Measured
    adjusted_p: float
    is_real: bool


@dataclass(frozen=True)
class Contrast:
    """New minus current: accuracy in `comparison`, then the others; of log loss and calibration error less is better.

    ``classes`` are those with labels, the largest loss of recall first.
    """

    comparison: Comparison
    macro_f1: Measured
    log_loss: Measured
    calibration_error: Measured
    classes: tuple[ClassContrast, ...]

    @property
    def others(self) -> tuple[tuple[str, Measured], ...]:
        """What is measured beside the accuracy, by title."""
        return (
            ("macro F1", self.macro_f1),
            ("log loss", self.log_loss),
            ("calibration error", self.calibration_error),
        )


@dataclass(frozen=True)
class NumberContrast:
    """New minus current of two models of numbers: mean absolute error in `comparison`, root mean square error, and the
    share of labels ``inside`` 1.96 deviations. Of errors less is better; the share should be 0.95.
    """

    comparison: Comparison
    rmse: Measured
    inside: Measured
    classes: tuple[ClassContrast, ...] = ()

    @property
    def mae(self) -> Measured:
        return Measured(self.comparison.difference, self.comparison.interval)

    @property
    def others(self) -> tuple[tuple[str, Measured], ...]:
        """What is measured beside the mean absolute error, by title."""
        return ("root mean square", self.rmse), ("within 95 %", self.inside)


def contrast(
    new: NDArray[Any], current: NDArray[Any], labels: NDArray[np.integer[Any]], classes: tuple[str, ...], seed: int = 0
) -> Contrast:
    """Compare probabilities (n, K) of two models on class indices (n,). Raises HoldoutMismatch where they do not fit.

    Macro F1, log loss and calibration error by a paired bootstrap, recalls as `evaluate.compare` does accuracy: exact
    McNemar tests, corrected for their number by Benjamini and Hochberg. O(resamples · n · K).
    """
    measured = [evaluate(one, labels, classes) for one in (new, current)]
    drawn = [resample(one, labels, np.random.default_rng(seed)) for one in (new, current)]

    def difference(name: str) -> Measured:
        values = [float(getattr(one, name)) for one in measured]
        gaps: NDArray[np.float64] = getattr(drawn[0], name) - getattr(drawn[1], name)
        return Measured(values[0] - values[1], percentiles(gaps))

    return Contrast(
        comparison=compare(new, current, labels),
        macro_f1=difference("macro_f1"),
        log_loss=difference("log_loss"),
        calibration_error=difference("calibration_error"),
        classes=_classes(new.argmax(axis=1) == labels, current.argmax(axis=1) == labels, _of_each(labels), classes),
    )


def contrast_sets(
    new: NDArray[Any],
    current: NDArray[Any],
    told: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    truth: NDArray[np.bool_],
    classes: tuple[str, ...],
    seed: int = 0,
) -> Contrast:
    """The same of two models of label sets: probabilities and the labels told, (n, K), new and current, and the truth.

    Accuracy is of whole sets. Raises HoldoutMismatch.
    """
    measured = [evaluate_sets(one, said, truth, classes) for one, said in zip((new, current), told, strict=True)]
    drawn = [resample_sets(one, said, truth, seed) for one, said in zip((new, current), told, strict=True)]

    def difference(name: str) -> Measured:
        values = [float(getattr(one, name)) for one in measured]
        return Measured(values[0] - values[1], percentiles(getattr(drawn[0], name) - getattr(drawn[1], name)))

    right = [said == truth for said in told]
    members = {at: np.flatnonzero(truth[:, at]) for at in np.flatnonzero(truth.any(axis=0)).tolist()}
    each = [(right[0][rows, at], right[1][rows, at]) for at, rows in members.items()]
    return Contrast(
        comparison=compare_right(right[0].all(axis=1), right[1].all(axis=1)),
        macro_f1=difference("macro_f1"),
        log_loss=difference("log_loss"),
        calibration_error=difference("calibration_error"),
        classes=_recalls(list(members), each, classes),
    )


def contrast_numbers(new: NDArray[Any], current: NDArray[Any], truth: NDArray[np.float64]) -> NumberContrast:
    """Compare numbers and deviations (n, 2) of two models on labels (n,): the mean absolute error by Student's t, the
    others by a paired bootstrap. O(resamples · n). Raises HoldoutMismatch.
    """
    one, other = (evaluate_numbers(said, truth) for said in (new, current))
    drawn = draws(len(truth))
    squares = [np.square(said[:, 0].astype(np.float64) - truth) for said in (new, current)]
    within = [is_within(said, truth) for said in (new, current)]
    return NumberContrast(
        comparison=compare_numbers(new[:, 0], current[:, 0], truth),
        rmse=Measured(one.rmse - other.rmse, percentiles(np.sqrt(drawn @ squares[0]) - np.sqrt(drawn @ squares[1]))),
        inside=Measured(one.inside - other.inside, percentiles(drawn @ within[0] - drawn @ within[1])),
    )


def _of_each(labels: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
    """The rows of each class that has some."""
    return {int(k): np.flatnonzero(labels == k) for k in np.unique(labels)}


def _classes(
    new: NDArray[np.bool_], current: NDArray[np.bool_], members: dict[int, NDArray[np.int64]], classes: tuple[str, ...]
) -> tuple[ClassContrast, ...]:
    return _recalls(list(members), [(new[rows], current[rows]) for rows in members.values()], classes)


def _recalls(
    present: list[int], right: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], classes: tuple[str, ...]
) -> tuple[ClassContrast, ...]:
    """Of the classes `present`, whether new and current model find each item that has them."""
    if not present:
        return ()
    found = [compare_right(*both) for both in right]
    p = [binomtest(one.won, one.won + one.lost).pvalue if one.won + one.lost else 1.0 for one in found]
    adjusted = false_discovery_control(p)
    rows = [
        ClassContrast(
            classes[k],
            one.labels,
            Measured(one.difference, one.interval),
            float(value),
            bool(value <= FALSE_DISCOVERIES),
        )
        for k, one, value in zip(present, found, adjusted, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: row.recall.value))

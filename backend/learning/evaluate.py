"""How good a model is, how sure we may be of it, and whether a new one may take the old one's place."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm, t

from backend.errors import HoldoutMismatch

HOLDOUT_MINIMUM = 100
_Z = float(norm.ppf(0.975))
_BINS = 15


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class ClassReport:
    """One class on the evaluated labels. Precision is None if it was never predicted, recall if never labelled."""

    name: str
    labels: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """Measures on ``labels`` labelled items; ``log_loss`` in nats, the others in [0, 1].

    ``source`` says which labels: the holdout, drawn uniformly and never trained on, or out-of-fold predictions on
    the training labels, which a strategy chose: those are not the pool's, so the accuracy is only indicative.
    ``macro_f1`` is the mean over the classes that were labelled or predicted.
    """

    source: Literal["holdout", "cross-validation"]
    labels: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    log_loss: float
    calibration_error: float
    classes: tuple[ClassReport, ...]

    def to_json(self) -> str:
        """JSON text that `from_json` turns into an equal evaluation."""
        return json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        fields: dict[str, Any] = json.loads(text)
        fields["accuracy_interval"] = Interval(**fields["accuracy_interval"])
        fields["classes"] = tuple(ClassReport(**one) for one in fields["classes"])
        return cls(**fields)


Measure = Literal["accuracy", "mean absolute error"]


@dataclass(frozen=True)
class Comparison:
    """A new model against the current one on the same labels.

    ``difference`` is new minus current `measure` with its paired 95 % interval: of accuracy, where more is better, or
    of the mean absolute error, where less is. ``won`` and ``lost`` count the labels that the new one answers rightly
    and the other does not, or comes closer to, and the reverse. ``p_better`` and ``p_worse`` are the one-sided
    probabilities of as much if the two were alike; ``is_worse`` when the latter is below 2.5 %.
    """

    labels: int
    difference: float
    interval: Interval
    won: int
    lost: int
    p_better: float
    p_worse: float
    is_worse: bool
    measure: Measure = "accuracy"

    @property
    def gap(self) -> str:
        """The difference in words."""
        form = "+.3f" if self.measure == "accuracy" else "+.4g"
        return (
            f"{self.measure} {self.difference:{form}} (95 %: {self.interval.low:{form}} to {self.interval.high:{form}})"
        )


def wilson(correct: int, total: int) -> Interval:
    """The 95 % score interval of a proportion; it stays inside [0, 1] and holds for few labels too.

    Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927.
    """
    if total == 0:
        return Interval(0.0, 1.0)
    share, z2 = correct / total, _Z**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def mean_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The standard error of a mean of values (n,), and half the width of Student's 95 % interval; of one, infinite."""
    if len(values) == 1:
        return np.inf, np.inf
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return error, error * float(t.ppf(0.975, len(values) - 1))


def evaluate(
    probabilities: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    classes: tuple[str, ...],
    source: Literal["holdout", "cross-validation"] = "holdout",
) -> Evaluation:
    """Measure probabilities (n, K) against class indices (n,). Raises HoldoutMismatch if they do not fit."""
    _check(probabilities, labels, len(classes))
    k, predicted = len(classes), probabilities.argmax(axis=1)
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    hits, labelled, named = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = (labelled + named) > 0
    f1 = 2 * hits[present] / (labelled + named)[present]
    true = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1.0)
    correct = int(hits.sum())
    return Evaluation(
        source=source,
        labels=len(labels),
        accuracy=correct / len(labels),
        accuracy_interval=wilson(correct, len(labels)),
        macro_f1=float(f1.mean()),
        log_loss=float(-np.log(true).mean()),
        calibration_error=calibration_error(probabilities, labels),
        classes=tuple(
            ClassReport(
                name,
                int(labelled[at]),
                float(hits[at] / named[at]) if named[at] else None,
                float(hits[at] / labelled[at]) if labelled[at] else None,
            )
            for at, name in enumerate(classes)
        ),
    )


def choose_labels(holdout: int) -> Literal["holdout", "cross-validation"]:
    """Which labels can carry a verdict: the holdout from 100 labels on, before that the folds of the fit."""
    return "holdout" if holdout >= HOLDOUT_MINIMUM else "cross-validation"


def calibration_error(probabilities: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """Expected calibration error over 15 equal bins of confidence, in [0, 1].

    Guo, Pleiss, Sun & Weinberger, *On calibration of modern neural networks*, ICML 2017.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def compare(new: NDArray[Any], current: NDArray[Any], labels: NDArray[np.integer[Any]]) -> Comparison:
    """Pair two models' probabilities (n, K) on the same items, in the same order, with labels (n,).

    The interval is Newcombe's square-and-add with the pairs' correlation; unlike a bootstrap's it does not
    shrink to a point when the two agree everywhere. Raises HoldoutMismatch if the arrays do not fit.

    McNemar, Psychometrika 1947; Newcombe, *Improved confidence intervals for the difference between binomial
    proportions based on paired data*, Statistics in Medicine 1998 (method 10).
    """
    _check(new, labels, current.shape[1] if current.ndim == 2 else 0)
    _check(current, labels, current.shape[1])
    return compare_right(new.argmax(axis=1) == labels, current.argmax(axis=1) == labels)


def compare_right(right_new: NDArray[np.bool_], right_current: NDArray[np.bool_]) -> Comparison:
    """The same, given which of n items, at least one, each model answers rightly, (n,). The tests are exact."""
    both, neither = int((right_new & right_current).sum()), int((~right_new & ~right_current).sum())
    won, lost = int((right_new & ~right_current).sum()), int((~right_new & right_current).sum())
    p_worse = p_of_so_many(lost, won)
    return Comparison(
        labels=len(right_new),
        difference=(won - lost) / len(right_new),
        interval=_newcombe(both, won, lost, neither),
        won=won,
        lost=lost,
        p_better=p_of_so_many(won, lost),
        p_worse=p_worse,
        is_worse=p_worse < 0.025,
    )


def p_of_so_many(won: int, lost: int) -> float:
    """The exact one-sided McNemar probability of so many wins or more if the two models were alike."""
    return float(binom.sf(won - 1, won + lost, 0.5)) if won + lost else 1.0


def is_worse(new: NDArray[Any], current: NDArray[Any], labels: NDArray[np.integer[Any]]) -> bool:
    """Whether the new model is worse than chance would explain: only then it is not promoted. See `compare`."""
    return compare(new, current, labels).is_worse


def _newcombe(both: int, won: int, lost: int, neither: int) -> Interval:
    n = both + won + lost + neither
    first, second = (both + won) / n, (both + lost) / n
    one, two = wilson(both + won, n), wilson(both + lost, n)
    product = (both + won) * (lost + neither) * (both + lost) * (won + neither)
    cross = both * neither - won * lost
    corrected = max(cross - n / 2, 0) if cross > 0 else cross
    phi = corrected / np.sqrt(product) if product else 0.0
    below, above = first - one.low, two.high - second
    low = below**2 - 2 * phi * below * above + above**2
    below, above = one.high - first, second - two.low
    high = below**2 - 2 * phi * below * above + above**2
    difference = first - second
    return Interval(float(difference - np.sqrt(max(low, 0))), float(difference + np.sqrt(max(high, 0))))


def _check(probabilities: NDArray[Any], labels: NDArray[np.integer[Any]], classes: int) -> None:
    if not len(labels):
        raise HoldoutMismatch(problem="it has no labels")
    if probabilities.shape != (len(labels), classes):
        problem = f"{len(labels)} labels of {classes} classes, but probabilities of shape {probabilities.shape}"
        raise HoldoutMismatch(problem=problem)
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise HoldoutMismatch(problem=f"a label is outside the {classes} classes")
    if not np.isfinite(probabilities).all():
        raise HoldoutMismatch(problem="a probability is not finite; leave out items without an embedding")

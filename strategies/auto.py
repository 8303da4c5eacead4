"""The default: it chooses a strategy by what is known so far, and says why."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.registry import create, register
from strategies.running import run

COVERAGE = "typiclust"
"""What chooses while there is no model, or too few labels to trust one."""


@register("auto")
@dataclass(frozen=True)
class Auto(Strategy):
    """Coverage while labels are few, then small margins spread out, class by class where classes are skewed.

    Without a model, or below `labels_per_class` labels a class on average: `typiclust`. Then `margin_clusters`, or
    `class_balanced_margin` where the effective number of classes, exp(entropy), among the predicted or the labelled
    ones is below `even` of all. In a multi-label task classes are labels, and are not balanced: coverage, then
    `margin_clusters`. Of numbers: `max_herding`.
    ``diagnostics["policy"]`` says in a sentence what was chosen and why, ``diagnostics["chosen"]`` names it.

    The thresholds are those that won on CIFAR-10, balanced and long-tailed, with a head that the pool helps; the change
    from coverage to margin is Doucet et al., *Bridging diversity and uncertainty in active learning*, 2024, 2403.03728.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.PROBABILITIES | Needs.LABELLED
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL, Task.REGRESSION})
    cost = Cost.SHORTLIST

    labels_per_class: int = parameter(10, 0, 10_000)
    even: float = parameter(0.75, 0.0, 1.0)

    def select(self, request: Request) -> Selection:
        name, policy = self.choose(request)
        selection = run(create(name), request)
        extra = request.budget - len(selection)
        if extra > 0:  # items without a prediction are left: they go by coverage, after the others
            rest = replace(request, budget=extra, excluded=frozenset(selection.ids.tolist()))
            selection = _joined(selection, run(create(COVERAGE), rest))
        return replace(selection, diagnostics={**selection.diagnostics, "chosen": name, "policy": policy})

    def choose(self, request: Request) -> tuple[str, str]:
        """The strategy's name, and the reason as a sentence."""
        probabilities, labels = request.probabilities, request.labels
        if request.task == Task.REGRESSION:
            return "max_herding", f"Coverage (max_herding): the labels are numbers, of which there are {labels}."
        predictions = np.empty(0, dtype=np.int64) if probabilities is None else _predicted(probabilities)
        if probabilities is None or len(predictions) == 0:
            return COVERAGE, f"Coverage ({COVERAGE}): there is no model yet, with {labels} labels."
        classes = probabilities.shape[1]
        has_sets = request.task == Task.MULTI_LABEL
        known, kinds = (f"{labels} labelled items", "labels") if has_sets else (f"{labels} labels", "classes")
        if labels < self.labels_per_class * classes:
            few = f"{known} are fewer than {self.labels_per_class} for each of {classes} {kinds}"
            return COVERAGE, f"Coverage ({COVERAGE}): {few}, too few to trust the model's doubts."
        if has_sets:
            return "margin_clusters", (
                f"Small margins spread out (margin_clusters), a mean over {classes} labels: {known} are enough to "
                "trust the model's doubts."
            )
        predicted, labelled = _evenness(predictions, classes), 1.0
        if request.labelled_classes is not None and labels:
            labelled = _evenness(request.labelled_classes, classes)
        if min(predicted, labelled) < self.even:
            whose, share = ("predicted", predicted) if predicted <= labelled else ("labelled", labelled)
            return "class_balanced_margin", (
                f"Margin class by class (class_balanced_margin): {labels} labels, and the {whose} classes are skewed "
                f"(as if there were {share * classes:.1f} of {classes})."
            )
        return "margin_clusters", (
            f"Small margins spread out (margin_clusters): {labels} labels are enough to trust the model's doubts, and "
            f"the {classes} classes are even."
        )


def _predicted(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """The most probable class of every row that has a prediction."""
    total = probabilities.sum(axis=1)
    best: NDArray[np.int64] = probabilities.argmax(axis=1)[np.isfinite(total) & (total > 0)]
    return best


def _evenness(labels: NDArray[Any], classes: int) -> float:
    """Effective number of classes, exp(entropy of their shares), as a part of all: 1 where all are alike."""
    counts = np.bincount(labels, minlength=classes)
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) / classes


def _joined(one: Selection, other: Selection) -> Selection:
    return Selection(
        ids=np.concatenate([one.ids, other.ids]),
        utilities=np.concatenate([one.utilities, other.utilities]),
        propensities=np.concatenate([one.propensities, other.propensities]),
        reasons=one.reasons + other.reasons,
        diagnostics={**one.diagnostics, "without_prediction": len(other)},
    )

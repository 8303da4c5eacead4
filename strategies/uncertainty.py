"""Doubt about a prediction: of one class among several, or, label by label, of each yes or no."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Needs, Request, Task
from strategies.pointwise import Pointwise, Scores
from strategies.values import choice

MULTIPLE = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL})


@dataclass(frozen=True)
class Uncertainty(Pointwise):
    """Picks where a measure of doubt is highest.

    In a multi-label task each label is a question of two answers, with probabilities p and 1 - p; an item's utility is
    the measure's mean over its labels, or that of the label in most doubt. All three measures order answers of one
    label alike, so with ``over: max`` they pick the same items.

    Esuli & Sebastiani, *Active learning strategies for multi-label text classification*, ECIR 2009, compare such ways
    to make one number of many labels' confidences.
    """

    needs = Needs.PROBABILITIES
    tasks = MULTIPLE
    lowest: ClassVar[float] = 0.0

    over: str = choice("mean", "max")
    """Of a multi-label task: whether all labels count, or the one in most doubt."""

    @abstractmethod
    def doubt(self, probabilities: NDArray[Any]) -> NDArray[np.float32]:
        """(n,) of class probabilities (n, K) whose rows sum to one."""

    @abstractmethod
    def of_classes(self, request: Request) -> Scores:
        """The utility where items have one class, and how to say it."""

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        if request.task != Task.MULTI_LABEL:
            return self.of_classes(request)
        doubts = kernels.over_labels(request.probabilities, self.doubt, self.over)
        whose = "on average over its labels" if self.over == "mean" else "of the label in most doubt"
        measure = self.name.replace("_", " ")
        return Scores(doubts, f"{measure} {{doubt:.2f}} {whose}", {"doubt": doubts})

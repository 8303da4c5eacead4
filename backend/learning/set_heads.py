"""The head for items that have any number of labels: one yes or no for each. Torch-free, as `heads` is."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.heads import Floats, Head
from backend.questions import set_label
from strategies import Task


@dataclass(frozen=True, eq=False)
class SetHead(Head):
    """K logistic regressions on standardised embeddings, calibrated by one temperature.

    ``sigmoid((z @ weights + bias) / temperature)`` is (n, K): each label's own probability; rows do not sum to one. An
    item has the labels whose probability reaches their ``thresholds`` (K,), float32 in (0, 1): maybe none.
    """

    task = Task.MULTI_LABEL
    form = "nextbatch-head-3"
    arrays = (*Head.arrays, "thresholds")

    thresholds: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    def predict(self, embeddings: NDArray[Any]) -> Floats:
        """Probabilities of each label, (n, K) float32, as `Head.predict` reads and refuses embeddings."""
        said = self.logits(embeddings)
        with np.errstate(over="ignore", invalid="ignore"):  # of a row with a NaN; e^89 is infinity, and 1/inf is 0
            np.negative(said, out=said)
            np.exp(said, out=said)
            said += 1
            np.reciprocal(said, out=said)
        return said

    def label_of(self, said: NDArray[Any]) -> str:
        """The set of labels that probabilities (K,) stand for."""
        return set_label(name for name, is_in in zip(self.classes, said >= self.thresholds, strict=True) if is_in)

    def confidence(self, said: NDArray[Any]) -> float:
        """The probability that exactly this set is right, each label by itself."""
        return float(np.where(said >= self.thresholds, said, 1 - said).prod(dtype=np.float64))

    def doubts(self, said: NDArray[Any]) -> Floats:
        """(n,) in [0, 1], of the label in most doubt: 1 less the gap of its yes and no."""
        return np.asarray(1 - np.abs(2 * said - 1).min(axis=1), np.float32)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super()._shapes(), "thresholds": (len(self.classes),)}

    def _problem(self) -> str | None:
        wrong = super()._problem()
        if wrong is None and not ((self.thresholds > 0) & (self.thresholds < 1)).all():
            return "a threshold is no probability"
        return wrong

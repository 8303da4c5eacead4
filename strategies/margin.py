"""Smallest margin."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Request
from strategies.pointwise import Scores
from strategies.registry import register
from strategies.uncertainty import Uncertainty


@register("margin")
@dataclass(frozen=True)
class Margin(Uncertainty):
    """Pick the items whose two most probable classes are closest.

    Utility is ``-(p1 - p2)`` in [-1, 0], from probabilities (n, K); of each label ``-|2p - 1|`` in a multi-label task
    (see `Uncertainty`). Cheap and hard to beat once there are some
    hundred labels; blind to near-duplicates (see `margin_clusters`) and of no use before (see `max_herding`).

    Scheffer, Decomain & Wrobel, *Active hidden Markov models for information extraction*, IDA 2001.
    """

    lowest = -1.0

    def doubt(self, probabilities: NDArray[Any]) -> NDArray[np.float32]:
        return -kernels.gap(probabilities)

    def of_classes(self, request: Request) -> Scores:
        assert request.probabilities is not None
        gap = kernels.gap(request.probabilities)
        return Scores(-gap, "its two best classes are {gap:.0%} apart", {"gap": gap})

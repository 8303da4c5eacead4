"""Largest ratio of the second class to the first."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("ratio")
@dataclass(frozen=True)
class Ratio(Pointwise):
    """Pick the items whose second class is, in proportion, closest to the first.

    Utility is ``p2 / p1`` in [0, 1], from probabilities (n, K). Like `margin`, but two small probabilities side by
    side count as much as two large ones.

    Settles, *Active learning literature survey*, 2009, section 3.1.
    """

    needs = Needs.PROBABILITIES

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        ratio = second / np.maximum(first, np.finfo(np.float32).tiny)
        return Scores(ratio, "its second class is {ratio:.0%} as probable as its first", {"ratio": ratio})

"""Largest ratio of the second class to the first."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy
from strategies.registry import register


@register("ratio")
@dataclass(frozen=True)
class Ratio(Strategy):
    """Pick the items whose second class is, in proportion, closest to the first.

    Utility is ``p2 / p1`` in [0, 1], from probabilities (n, K). Like `margin`, but two small probabilities side by
    side count as much as two large ones.

    Settles, *Active learning literature survey*, 2009, section 3.1.
    """

    needs = Needs.PROBABILITIES
    cost = Cost.POINTWISE

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        ratio = second / np.maximum(first, np.finfo(np.float32).tiny)
        return request.take_highest(
            ratio, reason="its second class is {ratio:.0%} as probable as its first", ratio=ratio
        )

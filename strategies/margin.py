"""Smallest margin."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy
from strategies.registry import register


@register("margin")
@dataclass(frozen=True)
class Margin(Strategy):
    """Pick the items whose two most probable classes are closest.

    Utility is ``-(p1 - p2)`` in [-1, 0], from probabilities (n, K). Cheap and hard to beat once there are some
    hundred labels; blind to near-duplicates (see `margin_clusters`) and of no use before (see `max_herding`).

    Scheffer, Decomain & Wrobel, *Active hidden Markov models for information extraction*, IDA 2001.
    """

    needs = Needs.PROBABILITIES
    cost = Cost.POINTWISE

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        gap = first - second
        return request.take_highest(-gap, reason="its two best classes are {gap:.0%} apart", gap=gap)

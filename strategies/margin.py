"""Smallest margin."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("margin")
@dataclass(frozen=True)
class Margin(Pointwise):
    """Pick the items whose two most probable classes are closest.

    Utility is ``-(p1 - p2)`` in [-1, 0], from probabilities (n, K). Cheap and hard to beat once there are some
    hundred labels; blind to near-duplicates (see `margin_clusters`) and of no use before (see `max_herding`).

    Scheffer, Decomain & Wrobel, *Active hidden Markov models for information extraction*, IDA 2001.
    """

    needs = Needs.PROBABILITIES
    lowest = -1.0

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        gap = first - second
        return Scores(-gap, "its two best classes are {gap:.0%} apart", {"gap": gap})

"""Fewest votes for the winner: variation ratio."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("variation_ratio")
@dataclass(frozen=True)
class VariationRatio(Pointwise):
    """Pick the items on which the fewest heads vote for the winning class.

    Utility is ``1 - votes of the winner / T`` in [0, 1 - 1/min(T, K)], from samples (T, n, K). It has only T values:
    with few heads most of the batch is decided by ties, which go by id.

    Freeman, *Elementary applied statistics*, 1965; Gal, Islam & Ghahramani, ICML 2017, 1703.02910.
    """

    needs = Needs.SAMPLES

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        heads = len(request.samples)
        winner = kernels.votes(request.samples).max(axis=1)
        ratio = (1 - winner / heads).astype(np.float32)
        return Scores(ratio, f"its best class has {{votes}} of {heads} votes", {"votes": winner})

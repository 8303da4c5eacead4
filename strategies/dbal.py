"""Uncertain items by weighted k-means: diverse mini-batch active learning."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, highest, parameter
from strategies.registry import register
from strategies.sphere import sphere


@register("dbal")
@dataclass(frozen=True)
class Dbal(Strategy):
    """Take the smallest margins, cluster them with the uncertainty as weight, and pick the item nearest each centre.

    The shortlist has `shortlist` × b items with the smallest ``p1 - p2``; k-means on unit vectors of `dimensions`
    principal components makes b groups, `clusters` at most, and ``1 - (p1 - p2)`` weighs each item. The heaviest group
    gives first. Utility is the weight of the group that the pick stands for. `margin_clusters` is this without weights,
    and without near-duplicates.

    Zhdanov, *Diverse mini-batch active learning*, 2019, 1901.05954.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    cost = Cost.SHORTLIST

    shortlist: int = parameter(10, 1, 1000)
    dimensions: int = parameter(128, 1, 4096)
    clusters: int = parameter(1_000, 1, 10_000)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        gap = first - second
        wanted = max(request.budget, min(self.shortlist * request.budget, kernels.MOST_CLUSTERED))
        near = np.sort(highest(-gap.astype(np.float64), request.ids, wanted))
        points = sphere(request, self.dimensions)(near)
        weights = np.maximum(1 - gap[near], np.float32(1e-6))
        picks, mass = kernels.representatives(points, request.budget, self.clusters, request.seed, weights)
        return request.take(
            near[picks],
            mass,
            reason="its two best classes are {gap:.0%} apart, and it stands for a group of weight {mass:.2g}",
            diagnostics={"shortlist": len(near)},
            gap=gap[near[picks]],
            mass=mass,
        )

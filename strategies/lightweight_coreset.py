"""Half at random, half by the distance from the mean: a lightweight coreset."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import uniforms
from strategies.registry import register


@register("lightweight_coreset")
@dataclass(frozen=True)
class LightweightCoreset(Strategy):
    """Draw items with a chance of ``q = (1 - share) / n + share · d² / Σ d²``, d the distance from the pool's mean.

    Utility is n·q, so 1 is an item like any other. Weighted by one over its chance, a sample gives the k-means cost of
    any centres nearly without bias. The paper draws with replacement; here an item is drawn once, systematically in
    a random order, with a chance of exactly b·q (1 at most), which `propensities` hold. As fast as `random`.

    Bachem, Lucic & Krause, *Scalable k-means clustering via lightweight coresets*, KDD 2018, 1702.08248.
    """

    needs = Needs.EMBEDDINGS
    tasks = frozenset(Task)
    cost = Cost.GREEDY

    share: float = parameter(0.5, 0.0, 0.99)
    """How much the distance counts; 0 is uniform."""

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        n = len(request.ids)
        squared = kernels.squared_from_mean(request.embeddings)
        total = squared.sum()
        far = squared / total if total > 0 else np.full(n, 1 / n)
        sizes = (1 - self.share) / n + self.share * far
        chances = kernels.inclusion(sizes, request.budget)
        drawn = uniforms(request.ids, request.seed)
        start = uniforms(np.array([n]), request.seed + 1)[0]
        rows = kernels.systematic(chances, np.argsort(drawn, kind="stable"), start)
        return request.take(
            rows,
            n * sizes[rows],
            reason="drawn at random, {times:.2g} times as likely as the average item",
            propensity=chances[rows],
            times=n * sizes[rows],
        )

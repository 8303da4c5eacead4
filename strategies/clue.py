"""Clusters weighted by entropy: CLUE."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("clue")
@dataclass(frozen=True)
class Clue(Strategy):
    """Cluster the pool with the entropy as weight, and pick the item nearest each centre.

    The weight is the entropy of the probabilities at `temperature`: above 1 every item counts more alike, below 1 only
    doubtful ones count. k-means on unit vectors of `dimensions` principal components makes b groups, `clusters` at
    most; the heaviest gives first. Utility is the weight of the group that the pick stands for. Unlike `dbal` it
    cuts nothing off, so dense regions of middling doubt are asked about too. Beyond `candidates`, a uniform sample.

    Prabhu, Chandrasekaran, Saenko & Hoffman, *Active domain adaptation via clustering uncertainty-weighted
    embeddings*, ICCV 2021, 2010.08666.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    cost = Cost.SHORTLIST

    temperature: float = parameter(1.0, 0.01, 100.0)
    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(20_000, 1, 10**6)
    clusters: int = parameter(1_000, 1, 10_000)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        doubt = kernels.entropy(kernels.tempered(request.probabilities[rows], self.temperature))
        points = sphere(request, self.dimensions)(rows)
        weights = np.maximum(doubt, np.float32(1e-6))
        picks, mass = kernels.representatives(points, request.budget, self.clusters, request.seed, weights)
        return request.take(
            rows[picks],
            mass,
            reason="its entropy is {doubt:.2f}, and it stands for a group with {mass:.2g} in all",
            diagnostics={"candidates": len(rows), "pool": len(request.ids)},
            doubt=doubt[picks],
            mass=mass,
        )

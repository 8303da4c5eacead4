"""Small margins, from small clusters first: Cluster-Margin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, highest, parameter
from strategies.randomness import sample, uniforms
from strategies.registry import register
from strategies.sphere import sphere


@register("cluster_margin")
@dataclass(frozen=True)
class ClusterMargin(Strategy):
    """Take the smallest margins and pick from their clusters in turn, the smallest cluster first.

    Average linkage clusters `candidates` items of the pool, drawn uniformly, until a cluster has `cluster_size` of
    them on average, on unit vectors of `dimensions` principal components. Each of the `shortlist` × b items with
    the smallest ``p1 - p2`` belongs to the cluster of the nearest clustered item. Clusters are visited by how
    many of the shortlist they have, the fewest first, round after round, and give an item at random. Utility is
    ``-(p1 - p2)``, not falling along the batch. The paper clusters the whole pool once; so does this where
    `candidates` hold it, with its distance threshold said as a mean size. On a long-tailed pool it lost to random.

    Citovsky et al., *Batch active learning at scale*, NeurIPS 2021, 2107.14263.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    cost = Cost.SHORTLIST

    shortlist: int = parameter(10, 1, 1000)
    cluster_size: int = parameter(10, 1, 10_000)
    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(10_000, 1, 20_000)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        first, second = kernels.top2(request.probabilities)
        gap = first - second
        near = np.sort(highest(-gap.astype(np.float64), request.ids, self.shortlist * request.budget))
        rows = sample(request.ids, request.seed, self.candidates)
        on_sphere = sphere(request, self.dimensions)
        clustered = on_sphere(rows)
        group = kernels.average_linkage(clustered, max(1, len(rows) // self.cluster_size))
        nearest, _ = kernels.nearest(on_sphere(near), clustered)
        owner = group[nearest.numpy()]
        known = np.isin(near, rows)
        owner[known] = group[np.searchsorted(rows, near[known])]
        picks = _round_robin(owner, uniforms(request.ids[near], request.seed + 1))[: request.budget]
        sizes = np.bincount(owner)[owner]
        return request.take(
            near[picks],
            -gap[near[picks]],
            reason="its two best classes are {gap:.0%} apart, and {size} such items are in its cluster",
            diagnostics={"shortlist": len(near), "clusters": len(np.unique(owner)), "clustered": len(rows)},
            gap=gap[near[picks]],
            size=sizes[picks],
        )


def _round_robin(owner: NDArray[np.int64], lot: NDArray[np.float64]) -> NDArray[np.int64]:
    """All rows: the first of every cluster by lot, the smallest cluster first, then the second of each."""
    return kernels.in_turn(owner, lot, -np.bincount(owner).astype(np.float64))

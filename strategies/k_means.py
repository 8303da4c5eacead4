"""One item for each cluster: k-means."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("k_means")
@dataclass(frozen=True)
class KMeans(Strategy):
    """Cluster the pool into as many groups as picks, and pick the item nearest each centre, the largest group first.

    On unit vectors of `dimensions` principal components; `clusters` groups at most, beyond which each gives its second
    nearest, and so on. Utility is the number of items in the group. It does not look at what is labelled, so repeat it
    only where the pool changes; `typiclust` is its better sister. A pool beyond `candidates` is sampled uniformly.

    Kang, Ryu & Kwon, *Using cluster-based sampling to select initial training set for active learning in text
    classification*, PAKDD 2004.
    """

    needs = Needs.EMBEDDINGS
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(20_000, 1, 10**6)
    clusters: int = parameter(1_000, 1, 10_000)

    def select(self, request: Request) -> Selection:
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        points = sphere(request, self.dimensions)(rows)
        picks, sizes = kernels.representatives(points, request.budget, self.clusters, request.seed)
        return request.take(
            rows[picks],
            sizes,
            reason="it is near the centre of a group of {size:.0f}",
            diagnostics={"candidates": len(rows), "pool": len(request.ids)},
            size=sizes,
        )

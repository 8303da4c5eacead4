"""The most typical item of each cluster without a label: TypiClust."""

import heapq
from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("typiclust")
@dataclass(frozen=True)
class TypiClust(Strategy):
    """Cluster labelled and unlabelled items together, and pick the most typical of the least labelled clusters.

    There are as many clusters as labels and picks together, `clusters` at most. Each pick goes to the cluster with
    the fewest labels and picks, the larger of equals, and takes the item of highest typicality that is left: one
    over the mean distance to its `neighbours` nearest unlabelled items in the cluster, on unit vectors of `dimensions`
    principal components. Utility is that typicality, computed once a cluster, and not falling along the batch.
    For cold starts, above all where a head spreads labels over the pool. A pool beyond `candidates` is represented by a
    uniform sample.

    Hacohen, Dekel & Weinshall, *Active learning on a budget: opposite strategies suit high and low budgets*,
    ICML 2022, 2202.02794; unlike its code, this leaves out no small cluster.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    neighbours: int = parameter(20, 1, 1000)
    clusters: int = parameter(500, 1, 10_000)
    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        on_sphere = sphere(request, self.dimensions)
        points = on_sphere.with_labelled(rows)
        k = min(self.clusters, len(points) - len(rows) + request.budget)
        assignment, _ = kernels.kmeans(points, k, request.seed)
        cluster = assignment[: len(rows)].numpy()
        sizes = np.bincount(cluster, minlength=k)
        labels = np.bincount(assignment[len(rows) :].numpy(), minlength=k)

        turns = [(int(labels[c]), -int(sizes[c]), c) for c in range(k) if sizes[c]]
        heapq.heapify(turns)
        waiting: dict[int, list[int]] = {}
        typical = np.zeros(len(rows))
        picks: list[int] = []
        while len(picks) < request.budget:
            count, size, c = heapq.heappop(turns)
            if c not in waiting:
                members = np.flatnonzero(cluster == c)
                typical[members] = kernels.typicality(points[members], self.neighbours)
                waiting[c] = members[np.argsort(-typical[members], kind="stable")][::-1].tolist()
            picks.append(waiting[c].pop())
            if waiting[c]:
                heapq.heappush(turns, (count + 1, size, c))
        return request.take(
            rows[picks],
            typical[picks],
            reason="it is the most typical left of a group of {size} that had {labels} labels",
            diagnostics={"clusters": k, "candidates": len(rows), "pool": len(request.ids)},
            size=sizes[cluster[picks]],
            labels=labels[cluster[picks]],
        )

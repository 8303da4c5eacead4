"""Farthest first: k-center greedy, the core-set method."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.registry import register


@register("k_center_greedy")
@dataclass(frozen=True)
class KCenterGreedy(Strategy):
    """Pick, again and again, the item farthest from everything labelled and picked.

    Utility is that distance, which never grows along the batch; without labels the first pick is the item nearest
    to the mean, with the distance of the farthest item. Exact: the picks of the plain algorithm, ties by id. It
    seeks outliers, so it covers the pool's edge well and did worse than random for accuracy; see `max_herding`.

    Gonzalez, *Clustering to minimize the maximum intercluster distance*, 1985 (radius within twice the optimum);
    Sener & Savarese, *Active learning for convolutional neural networks: a core-set approach*, ICLR 2018, 1708.00489.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.GREEDY

    shortlist: int = parameter(8192, 1, 10**6)
    """Farthest items that are followed pick by pick: changes the time, not the picks."""

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        labelled = request.labelled_embeddings
        if labelled is None:
            labelled = np.empty((0, request.embeddings.shape[1]), dtype=np.float32)
        rows, distances = kernels.k_center(request.embeddings, labelled, request.budget, self.shortlist)
        return request.take(
            rows,
            distances,
            reason="it lies {distance:.3g} from the nearest labelled or picked item",
            distance=distances,
        )

"""Far apart, by lot: the seeding of k-means++."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task
from strategies.registry import register


@register("k_means_plus_plus")
@dataclass(frozen=True)
class KMeansPlusPlus(Strategy):
    """Draw items one by one, each with a chance in proportion to its squared distance to all labelled and drawn.

    Utility is that squared distance when drawn. Without labels the first is uniform, with utility 0. Exact, on all
    embeddings as they are. Between `random` and `k_center_greedy`: it spreads, and an outlier is only likelier.

    Arthur & Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.GREEDY

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        labelled = request.labelled_embeddings
        if labelled is None:
            labelled = np.empty((0, request.embeddings.shape[1]), dtype=np.float32)
        rows, squared = kernels.d2_sampling(request.embeddings, labelled, request.budget, request.seed)
        return request.take(
            rows,
            squared,
            reason="drawn by its distance of {distance:.3g} to what was labelled and drawn",
            distance=np.sqrt(squared),
        )

"""Doubt and unlikeness in one score, item after item: ranked batch mode."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy
from strategies.registry import register


@register("ranked_batch")
@dataclass(frozen=True)
class RankedBatch(Strategy):
    """Pick, again and again, the highest ``α · (1 - s) + (1 - α) · u``.

    u is ``1 - p1``; s is 1 / (1 + distance) to the nearest labelled or picked item; α is the share of items without a
    label or pick. Utility is the score, in [0, 1]. While the pool is much larger than the labelled set, α is nearly
    one, and this is nearly `k_center_greedy`: it fits small pools. Exact, on all embeddings as they are.

    Cardoso et al., *Ranked batch-mode active learning*, Information Sciences 379, 2017.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED
    cost = Cost.GREEDY

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        assert request.embeddings is not None
        labelled = request.labelled_embeddings
        if labelled is None:
            labelled = np.empty((0, request.embeddings.shape[1]), dtype=np.float32)
        best, _ = kernels.top2(request.probabilities)
        doubt = 1 - best.astype(np.float64)
        rows, scores = kernels.ranked_batch(request.embeddings, labelled, doubt, request.budget)
        return request.take(
            rows,
            scores,
            reason="its best class has {best:.0%}, and its score with unlikeness was {score:.3f}",
            best=best[rows],
            score=scores,
        )

"""What can be told from the labelled: discriminative active learning."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, highest, parameter
from strategies.randomness import sample, uniforms
from strategies.registry import register
from strategies.sphere import sphere


@register("dal")
@dataclass(frozen=True)
class Dal(Strategy):
    """Learn to tell labelled from unlabelled items, and pick those most surely unlabelled.

    The batch comes in `rounds` parts; after each, its picks count as labelled and the classifier learns anew. It is a
    logistic regression with ridge `penalty` on unit vectors of `dimensions` principal components (the paper: a small
    network), from all labelled items and `candidates` others drawn uniformly, both sides of equal weight. All
    of the pool is scored. Utility is the log-odds of being unlabelled; 0 in a first part drawn at random for want of
    labels.

    Gissin & Shalev-Shwartz, *Discriminative active learning*, 2019, 1907.06347.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.GREEDY

    rounds: int = parameter(10, 1, 1000)
    penalty: float = parameter(0.1, 1e-6, 1e6)
    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(10_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        on_sphere = sphere(request, self.dimensions)
        labelled = on_sphere.labelled().numpy()
        pool = sample(request.ids, request.seed, self.candidates)
        points = on_sphere(pool).numpy()
        lengths = kernels.projected_lengths(request.embeddings, on_sphere.project)
        picks: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        odds: NDArray[np.float64] = np.empty(0)
        for part in np.array_split(np.arange(request.budget), min(self.rounds, request.budget)):
            free = np.ones(len(request.ids), dtype=bool)
            free[picks] = False
            if len(labelled) + len(picks) == 0:
                said: NDArray[np.float64] = np.zeros(len(request.ids))
                rows = highest(uniforms(request.ids, request.seed), request.ids, len(part))
            else:
                known = np.concatenate([labelled, on_sphere(np.sort(picks)).numpy()])
                others = points[free[pool]] if free[pool].any() else points
                weights = kernels.tell_apart(others, known, self.penalty)
                said = kernels.linear_scores(request.embeddings, on_sphere.project, lengths, *weights)
                rows = highest(np.where(free, said, -np.inf), request.ids, len(part))
            picks, odds = np.concatenate([picks, rows]), np.concatenate([odds, said[rows]])
        return request.take(
            picks,
            odds,
            reason="it can be told from the labelled items with log-odds of {odds:.2f}",
            diagnostics={"candidates": len(pool), "pool": len(request.ids)},
            odds=odds,
        )

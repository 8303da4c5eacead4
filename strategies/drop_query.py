"""Changing their class when features are left out: DropQuery."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, highest, parameter
from strategies.randomness import uniforms
from strategies.registry import register
from strategies.sphere import sphere


@register("drop_query")
@dataclass(frozen=True)
class DropQuery(Strategy):
    """Cluster the items whose class changes when features are left out, and pick the one nearest each centre.

    The head looks at each embedding `passes` times with each feature left out with chance `rate`; an item that gets
    another class in more than half of them is a candidate. k-means makes b groups of the candidates, `clusters` at
    most, on unit vectors of `dimensions` principal components; the largest gives first. Utility is the number of
    changes. Too few candidates are filled up by changes, equals by lot; too many are thinned by lot.

    Gupte, Aklilu, Nirschl & Yeung-Levy, *Revisiting active learning in the era of vision foundation models*, TMLR 2024,
    2401.14555.
    """

    needs = Needs.EMBEDDINGS | Needs.LINEAR_HEAD
    cost = Cost.SHORTLIST

    passes: int = parameter(3, 1, 100)
    rate: float = parameter(0.75, 0.01, 0.99)
    dimensions: int = parameter(128, 1, 4096)
    clusters: int = parameter(1_000, 1, 10_000)

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        assert request.head_weights is not None
        assert request.head_bias is not None
        changes = kernels.dropped_disagreement(
            request.embeddings,
            request.ids,
            request.head_weights,
            request.head_bias,
            self.rate,
            self.passes,
            request.seed,
        )
        b = request.budget
        unsure = np.flatnonzero(2 * changes > self.passes)
        order = changes + uniforms(request.ids, request.seed - 1)
        if len(unsure) > b:
            kept = highest(order[unsure] % 1, request.ids[unsure], max(b, kernels.MOST_CLUSTERED))
            near = np.sort(unsure[kept])
            picks, _ = kernels.representatives(sphere(request, self.dimensions)(near), b, self.clusters, request.seed)
            rows = near[picks]
        else:
            rows = highest(order, request.ids, b)
        return request.take(
            rows,
            changes[rows],
            reason=f"its class changed {{changes}} times of {self.passes} when features were left out",
            diagnostics={"unsure": len(unsure), "pool": len(request.ids)},
            changes=changes[rows],
        )

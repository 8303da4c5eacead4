"""No near-duplicates, around any strategy."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Task, parameter
from strategies.registry import register
from strategies.sphere import sphere
from strategies.wrapping import Wrapper, narrowed, ranking


@register("distinct")
@dataclass(frozen=True)
class Distinct(Wrapper):
    """Take the picks of `of` in their order, without what looks like a labelled item or like a pick before it.

    Two items look alike where the cosine of their embeddings is at least `cosine`, on unit vectors of `dimensions`
    principal components. `of` is asked for a batch `depth` times as large; where too few distinct items are in it, the
    batch is filled up in order, and ``diagnostics["filled_up"]`` says by how many.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    cosine: float = parameter(0.95, 0.0, 1.01)
    """Above 1, nothing looks alike."""
    depth: int = parameter(5, 1, 1000)
    dimensions: int = parameter(128, 1, 4096)

    def select(self, request: Request) -> Selection:
        ranked, rows = ranking(self, request, self.depth)
        on_sphere = sphere(request, self.dimensions)
        points, labelled = on_sphere(rows), on_sphere.labelled()
        is_new = kernels.nearest_cosine(points, labelled).numpy() < self.cosine
        fresh = np.flatnonzero(is_new)
        kept = fresh[kernels.distinct(points[fresh], self.cosine, request.budget)]
        return narrowed(ranked, kept, request.budget)

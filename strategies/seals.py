"""Small margins among the neighbours of what is labelled: SEALS."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.registry import register
from strategies.sphere import sphere
from strategies.subpool import take_within


@register("seals")
@dataclass(frozen=True)
class Seals(Strategy):
    """Pick the smallest margins among the `neighbours` items most like each labelled item.

    By cosine of unit vectors of `dimensions` principal components. Utility is ``-(p1 - p2)``. Where the neighbours are
    fewer than the batch, or nothing is labelled, the rest goes by margin over the whole pool. For rare classes that
    lie together: it looks where labels are, so start with a label of each. It finds no class far from all labels.
    The paper keeps neighbour lists from round to round to save time; this computes them, in one pass.

    Coleman et al., *Similarity search for efficient active learning and search of rare concepts*, AAAI 2022,
    2007.00077.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    neighbours: int = parameter(100, 1, 10_000)
    dimensions: int = parameter(128, 1, 4096)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        assert request.embeddings is not None
        first, second = kernels.top2(request.probabilities)
        gap = first - second
        on_sphere = sphere(request, self.dimensions)
        near, _ = kernels.most_like(request.embeddings, on_sphere.project, on_sphere.labelled(), self.neighbours)
        return take_within(request, np.unique(near), gap)

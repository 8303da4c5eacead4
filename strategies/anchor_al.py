"""Small margins around anchors of every class: AnchorAL."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.registry import register
from strategies.sphere import sphere
from strategies.subpool import take_within


@register("anchor_al")
@dataclass(frozen=True)
class AnchorAl(Strategy):
    """Pick the smallest margins among the items most like some anchors of every class.

    Anchors are `anchors` labelled items of each class, spread by the seeding of k-means++. Each brings the `neighbours`
    items most like it, by cosine of unit vectors of `dimensions` principal components; the `subpool` items, or twice
    the batch, of the highest mean cosine to the anchors that brought them form the sub-pool. Utility is
    ``-(p1 - p2)``. Where the sub-pool is smaller than the batch, or nothing is labelled, the rest goes by margin over
    the whole pool. As every class has as many anchors, rare classes get as large a part of the sub-pool.

    Lesci & Vlachos, *AnchorAL: computationally efficient active learning for large and imbalanced datasets*, NAACL
    2024, 2404.05623.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    anchors: int = parameter(10, 1, 1000)
    neighbours: int = parameter(50, 1, 10_000)
    subpool: int = parameter(1_000, 1, 10**6)
    dimensions: int = parameter(128, 1, 4096)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        assert request.embeddings is not None
        first, second = kernels.top2(request.probabilities)
        labelled, classes = request.labelled_embeddings, request.labelled_classes
        if labelled is None or classes is None or len(labelled) == 0:
            return take_within(request, np.empty(0, dtype=np.int64), first - second)
        on_sphere = sphere(request, self.dimensions)
        points = on_sphere.labelled()
        chosen = kernels.anchors(points.numpy(), classes, self.anchors, request.seed)
        near, cosine = kernels.most_like(request.embeddings, on_sphere.project, points[chosen], self.neighbours)
        found, back = np.unique(near, return_inverse=True)
        mean = np.bincount(back.ravel(), cosine.ravel()) / np.bincount(back.ravel())
        wanted = max(self.subpool, 2 * request.budget)
        kept = found[np.lexsort((found, -mean.round(6)))[:wanted]]
        return take_within(request, np.sort(kept), first - second)

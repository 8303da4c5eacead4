"""Large and unlike gradients: BADGE."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy
from strategies.registry import register


@register("badge")
@dataclass(frozen=True)
class Badge(Strategy):
    """Draw items whose gradients are long and far apart: k-means++ on the gradients of the head's last layer.

    An item's gradient is (p - e) ⊗ h, where e marks the most probable class and h is the embedding. The first pick
    has the longest gradient, as in the authors' code; each further one is drawn with a chance in proportion to the
    squared distance of its gradient to those drawn before, which is its utility. The gradients, n × K·d numbers, are
    never written out. No parameter to tune and robust over data sets; a little behind `margin_clusters` where measured.

    Ash, Zhang, Krishnamurthy, Langford & Agarwal, *Deep batch active learning by diverse, uncertain gradient lower
    bounds*, ICLR 2020, 1906.03671.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    cost = Cost.GREEDY

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        assert request.embeddings is not None
        probabilities = request.probabilities

        def factors(rows: Any) -> NDArray[np.float32]:
            return kernels.residuals(probabilities[rows])

        nothing = np.empty((0, request.embeddings.shape[1]), dtype=np.float32)
        rows, squared = kernels.d2_sampling(request.embeddings, nothing, request.budget, request.seed, factors)
        return request.take(
            rows,
            squared,
            reason="its gradient lay {distance:.2g} from those picked before",
            distance=np.sqrt(squared),
        )

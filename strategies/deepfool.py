"""Nearest to a boundary of the head: DeepFool, in closed form."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("deepfool")
@dataclass(frozen=True)
class DeepFool(Pointwise):
    """Pick the items whose embedding has to move least to be predicted otherwise.

    Utility is minus that distance, ``(z_top - z_k) / ‖w_top - w_k‖`` for the nearest class k, in the embeddings' unit;
    z are the logits of the linear head (d, K). Exact, where DeepFool on a network is an iteration. Like `margin` in
    logits, with classes of long weights counted as near; it does not mind how the head is calibrated.

    Ducoffe & Precioso, *Adversarial active learning for deep networks: a margin based approach*, 2018, 1802.09841;
    Moosavi-Dezfooli, Fawzi & Frossard, *DeepFool*, CVPR 2016, 1511.04599.
    """

    needs = Needs.EMBEDDINGS | Needs.LINEAR_HEAD
    lowest = -np.inf

    def score(self, request: Request) -> Scores:
        assert request.embeddings is not None
        assert request.head_weights is not None
        assert request.head_bias is not None
        apart = kernels.boundary_distance(request.embeddings, request.head_weights, request.head_bias)
        return Scores(-apart, "it lies {apart:.2g} from the nearest boundary between classes", {"apart": apart})

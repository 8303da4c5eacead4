"""Largest expected gradient of the last layer: EGL."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("egl")
@dataclass(frozen=True)
class Egl(Pointwise):
    """Pick the items whose label would move the head most, whatever the label.

    Utility is ``Σ_k p_k ‖p - e_k‖ · ‖h‖``, the expected length of the log-loss's gradient by the head's weights, from
    probabilities (n, K) and embeddings h (n, d). On embeddings of length one it is a cousin of `gini`; on raw ones it
    follows their length, which need not mean anything.

    Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        assert request.embeddings is not None
        length = kernels.expected_residual(request.probabilities) * kernels.lengths(request.embeddings)
        return Scores(length, "its label would move the head by {length:.2g} on average", {"length": length})

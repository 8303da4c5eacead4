"""Largest entropy."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("entropy")
@dataclass(frozen=True)
class Entropy(Pointwise):
    """Pick the items whose predicted distribution is most uncertain.

    Utility is ``-Σ p log p`` in [0, log K] nats, with 0 log 0 = 0, from probabilities (n, K). On a balanced image
    pool it did worse than random (1,588 labels where random needed 1,000); it is here to compare with.

    Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    needs = Needs.PROBABILITIES

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        nats = kernels.entropy(request.probabilities)
        return Scores(nats, "its classes have an entropy of {nats:.2f} nats", {"nats": nats})

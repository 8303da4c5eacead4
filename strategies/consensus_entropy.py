"""Largest entropy of a committee."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("consensus_entropy")
@dataclass(frozen=True)
class ConsensusEntropy(Pointwise):
    """Pick the items whose mean prediction over the heads is most uncertain.

    Utility is ``H(mean p)`` in [0, log K] nats, from samples (T, n, K): doubt in the data and disagreement of the heads
    together. `bald` is the disagreement alone, `entropy` the same of one head.

    After McCallum & Nigam, *Employing EM and pool-based active learning for text classification*, ICML 1998.
    """

    needs = Needs.SAMPLES

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        nats = kernels.consensus_entropy(request.samples)
        return Scores(nats, "the heads together leave an entropy of {nats:.2f} nats", {"nats": nats})

"""Most evenly split vote: query by committee."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("vote_entropy")
@dataclass(frozen=True)
class VoteEntropy(Pointwise):
    """Pick the items on which the heads' votes are spread most evenly.

    Utility is the entropy of the votes in [0, log min(T, K)] nats, from samples (T, n, K). It hears only which class
    each head prefers, not how much: with few heads most of the batch is decided by ties, which go by id.

    Dagan & Engelson, *Committee-based sampling for training probabilistic classifiers*, ICML 1995; Seung, Opper &
    Sompolinsky, *Query by committee*, COLT 1992.
    """

    needs = Needs.SAMPLES

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        votes = kernels.votes(request.samples)
        nats = kernels.entropy(votes / np.float32(len(request.samples)))
        voted = np.count_nonzero(votes, axis=1)
        return Scores(nats, "its votes go to {voted} classes, {nats:.2f} nats apart", {"nats": nats, "voted": voted})

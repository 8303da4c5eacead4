"""Largest mutual information between label and model: BALD."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("bald")
@dataclass(frozen=True)
class Bald(Pointwise):
    """Pick the items whose label tells most about which of the plausible heads is right.

    Utility is ``H(mean p) - mean H(p_t)`` in [0, log K] nats and at most log T, from samples (T, n, K). High where the
    heads are sure and disagree; zero where they agree to be unsure, which is what `entropy` cannot tell apart. One at
    a time: the best items of a batch tell the same, see `batch_bald`. With fewer than about ten heads it is noise.

    Houlsby, Huszár, Ghahramani & Lengyel, *Bayesian active learning for classification and preference learning*,
    2011, 1112.5745; Gal, Islam & Ghahramani, ICML 2017, 1703.02910.
    """

    needs = Needs.SAMPLES

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        nats = kernels.information(request.samples)
        return Scores(nats, "its label tells {nats:.2g} nats about which head is right", {"nats": nats})

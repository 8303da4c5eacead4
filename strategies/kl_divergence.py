"""Heads that differ most from their consensus: query by committee with the Kullback-Leibler divergence."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register
from strategies.values import choice


@register("kl_divergence")
@dataclass(frozen=True)
class KlDivergence(Pointwise):
    """Pick the items on which the heads diverge most from their mean.

    Utility is KL(p_t ‖ mean p) in [0, log T] nats, from samples (T, n, K): its mean `over` the heads, which is the same
    number as `bald`, or its "max", one dissenter being enough.

    McCallum & Nigam, *Employing EM and pool-based active learning for text classification*, ICML 1998.
    """

    needs = Needs.SAMPLES

    over: str = choice("mean", "max")

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        measure = kernels.information if self.over == "mean" else kernels.largest_divergence
        nats = measure(request.samples)
        who = "the heads lie" if self.over == "mean" else "one head lies"
        return Scores(nats, who + " {nats:.2g} nats from what they say together", {"nats": nats})

"""Least confidence."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("least_confidence")
@dataclass(frozen=True)
class LeastConfidence(Pointwise):
    """Pick the items whose most probable class is least probable.

    Utility is ``1 - p1`` in [0, 1 - 1/K], from probabilities (n, K). With many classes it asks for items that
    nobody can tell; `margin` is nearly always better.

    Lewis & Gale, *A sequential algorithm for training text classifiers*, SIGIR 1994.
    """

    needs = Needs.PROBABILITIES

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        first, _ = kernels.top2(request.probabilities)
        return Scores(1 - first, "its best class has only {best:.0%}", {"best": first})

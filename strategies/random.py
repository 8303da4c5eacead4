"""Uniform at random."""

import math
from dataclasses import dataclass

from strategies.contract import Needs, Request, Task
from strategies.pointwise import Pointwise, Scores
from strategies.randomness import uniforms
from strategies.registry import register


@register("random")
@dataclass(frozen=True)
class Random(Pointwise):
    """Pick uniformly without replacement.

    Utility is the item's own random number in [0, 1), a function of (seed, id); the propensity is ``b / n``.
    The baseline that everything else has to beat, and the only one whose labels measure accuracy without bias.
    """

    needs = Needs.NOTHING
    tasks = frozenset(Task)

    def score(self, request: Request) -> Scores:
        share = request.budget / max(1, len(request.ids))
        drawn = uniforms(request.ids, request.seed)
        one_in = math.ceil(1 / share) if share else 0
        return Scores(drawn, f"drawn at random, one in {one_in}", propensities=share)

"""A uniform random share with known chances, around any strategy."""

import math
from dataclasses import dataclass, replace

import numpy as np

from strategies.contract import Cost, Needs, Request, Selection, Task, highest, parameter
from strategies.randomness import salted, sample, uniforms
from strategies.registry import register
from strategies.running import run
from strategies.wrapping import Wrapper, inherited


@register("random_share")
@dataclass(frozen=True)
class RandomShare(Wrapper):
    """Give a `share` of the batch, rounded up, to items drawn uniformly from those that `of` leaves.

    The propensity is the chance of being in the batch given what `of` picked: 1 for its picks, r / (n - m) for the r
    drawn beside its m. Sums over the batch weighted by 1 / propensity are therefore unbiased for the pool, whatever
    `of` does. Both kinds are mixed at random, so that both are labelled where people stop early. Utility is that of
    `of`, and for an item drawn its random number in [0, 1).

    Horvitz & Thompson, *A generalization of sampling without replacement from a finite universe*, JASA 1952.
    """

    needs = Needs.NOTHING
    tasks = frozenset(Task)
    cost = Cost.POINTWISE

    share: float = parameter(0.2, 0.0, 1.0)

    def select(self, request: Request) -> Selection:
        seed = salted(request.seed, "random_share")
        count = math.ceil(self.share * request.budget)
        wanted = run(self.of, replace(request, budget=request.budget - count))
        left = request.ids[~np.isin(request.ids, wanted.ids)]
        numbers = uniforms(left, seed)
        drawn = highest(numbers, left, count)
        chance = count / max(1, len(left))
        is_drawn = np.zeros(request.budget, dtype=bool)
        is_drawn[sample(np.arange(request.budget), seed + 1, count)] = True
        order = np.empty(request.budget, dtype=np.int64)
        order[~is_drawn], order[is_drawn] = np.arange(len(wanted)), len(wanted) + np.arange(count)
        reasons = (*wanted.reasons, *[f"drawn at random from the rest, with a chance of {chance:.2g}"] * count)
        return Selection(
            ids=np.concatenate([wanted.ids, left[drawn]])[order],
            utilities=np.concatenate([wanted.utilities, numbers[drawn]])[order],
            propensities=np.where(is_drawn, chance, 1.0),
            reasons=tuple(reasons[place] for place in order),
            diagnostics={**inherited(wanted), "drawn": count},
        )

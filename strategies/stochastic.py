"""Any score as a lottery: stochastic batches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Needs, Request, Task, parameter
from strategies.pointwise import Scores
from strategies.randomness import gumbels, salted
from strategies.registry import register
from strategies.values import choice
from strategies.wrapping import Blend


@register("stochastic")
@dataclass(frozen=True)
class Stochastic(Blend):
    """Draw the batch, without replacement, in proportion to what `of` says of each item.

    The weight of an item is ``s^β`` by `noise` "power", ``exp(β s)`` by "gibbs", ``rank^-β`` by "rank", with s the
    worth that `of` gives and β the `sharpness`: 0 is uniform, and the larger, the closer to `of`. Utility is the
    log-weight plus a Gumbel number. A cheap cure for batches of likes: with `bald` it comes near `batch_bald` at a
    small part of the cost.

    The propensity is the chance of being in the batch given the noise of the best item left out,
    ``1 - exp(-exp(log-weight - its utility))``; sums weighted by 1 / propensity are unbiased for the pool.

    Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron & Gal, *Stochastic batch acquisition*, 2021, 2106.12059;
    propensities: Kool, van Hoof & Welling, *Estimating gradients for discrete random variables by sampling without
    replacement*, ICLR 2020, 2002.06043.
    """

    needs = Needs.NOTHING
    tasks = frozenset(Task)
    lowest = -np.inf

    noise: str = choice("power", "gibbs", "rank")
    sharpness: float = parameter(1.0, 0.0, 1000.0)

    def score(self, request: Request) -> Scores:
        inner, worth = self.scores(self.of, request)
        weight = self.sharpness * self._strength(worth)
        drawn = weight + gumbels(request.ids, salted(request.seed, "stochastic"))
        chance = _inclusion(weight, drawn, request.budget)
        return Scores(drawn, "drawn with a chance of {chance:.2g}", {"chance": chance}, (inner,), chance)

    def _strength(self, worth: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.noise == "gibbs":
            return worth
        place = 1 + (1 - kernels.ranks(worth)) * len(worth)  # 1 for the best
        base = 1 / place if self.noise == "rank" else np.maximum(worth, np.finfo(np.float64).tiny)
        strength: NDArray[np.float64] = np.log(base)
        return strength


def _inclusion(weight: NDArray[np.float64], drawn: NDArray[np.float64], budget: int) -> NDArray[np.float64]:
    if budget >= len(drawn):
        return np.ones(len(drawn))
    first_out = np.partition(drawn, len(drawn) - budget - 1)[len(drawn) - budget - 1]
    chance: NDArray[np.float64] = -np.expm1(-np.exp(np.minimum(weight - first_out, 700)))
    return chance

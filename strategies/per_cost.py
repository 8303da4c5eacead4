"""Utility for the price, around any strategy that scores each item."""

from dataclasses import dataclass

from strategies.contract import Needs, Request, Task, parameter
from strategies.pointwise import Scores
from strategies.registry import register
from strategies.wrapping import Blend


@register("per_cost")
@dataclass(frozen=True)
class PerCost(Blend):
    """Pick the items with the most utility of `of` for what their label costs.

    Utility is ``worth / cost^power``, from costs (n,) above zero in any unit, such as seconds of work; worth is the
    utility counted from the lowest that `of` can give, so that it is an amount. The batch's size still counts items.
    `power` 0 is `of` itself; above 1, price goes before utility.

    Settles, Craven & Friedland, *Active learning with real annotation costs*, NIPS workshop 2008.
    """

    needs = Needs.COSTS
    tasks = frozenset(Task)

    power: float = parameter(1.0, 0.0, 10.0)

    def score(self, request: Request) -> Scores:
        assert request.costs is not None
        inner, worth = self.scores(self.of, request)
        price = request.costs.astype(float) ** self.power
        facts = {"worth": worth, "cost": request.costs}
        return Scores(worth / price, "it is worth {worth:.2g} and costs {cost:.3g}", facts, (inner,))

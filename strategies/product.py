"""Two strategies at once: the product of their ranks."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request, Strategy, Task, parameter
from strategies.pointwise import Scores
from strategies.registry import register
from strategies.wrapping import Blend, part


@register("product")
@dataclass(frozen=True)
class Product(Blend):
    """Pick the items that stand high with both `of` and `by`.

    Utility is ``rank_of · rank_by^weight`` in (0, 1]: the item's place in the pool by each utility, from 1/n for the
    lowest to 1, equals sharing the mean of their places. Ranks, since utilities have units that cannot be multiplied.
    With `density` it is information density; `weight` 0 is `of` itself.

    After Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    needs = Needs.NOTHING
    tasks = frozenset(Task)

    by: Strategy = part("density")
    weight: float = parameter(1.0, 0.0, 10.0)

    def score(self, request: Request) -> Scores:
        one, other = (self.scores(made, request)[0] for made in (self.of, self.by))
        of, by = kernels.ranks(one.utilities), kernels.ranks(other.utilities)
        reason = f"it stands above {{of:.0%}} of the pool by {self.of.name} and above {{by:.0%}} by {self.by.name}"
        return Scores(of * by**self.weight, reason, {"of": of, "by": by}, (one, other))

"""A random part of the pool, for strategies that cannot look at all of it."""

from dataclasses import dataclass, replace

from strategies.contract import Cost, Needs, Request, Selection, Task, parameter
from strategies.randomness import salted, sample
from strategies.registry import register
from strategies.running import restrict, run
from strategies.wrapping import Wrapper, inherited


@register("sub_sample")
@dataclass(frozen=True)
class SubSample(Wrapper):
    """Let `of` see only `size` items, or the batch's size where that is larger, drawn uniformly for this round.

    Utility is that of `of`. The propensity is its propensity times the chance of having been seen, and not known where
    `of` does not know its own. It copies the rows that are seen.

    Small random subsets cost little accuracy: Ertekin et al., *Learning on the border*, CIKM 2007.
    """

    needs = Needs.NOTHING
    tasks = frozenset(Task)
    cost = Cost.POINTWISE

    size: int = parameter(10_000, 1, 10**8)

    def select(self, request: Request) -> Selection:
        rows = sample(request.ids, salted(request.seed, "sub_sample"), max(self.size, request.budget))
        selection = run(self.of, restrict(self.of, request, rows))
        seen = len(rows) / len(request.ids)
        said = {**inherited(selection), "seen": len(rows), "pool": len(request.ids)}
        return replace(selection, propensities=selection.propensities * seen, diagnostics=said)

"""The like of given items: targeted selection."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.registry import register
from strategies.sphere import sphere


@register("similar")
@dataclass(frozen=True)
class Similar(Strategy):
    """Pick the items most like the targets, with a part for every target.

    Maximises Σ over targets of the likeness to the nearest pick + `relevance` · Σ over picks of the likeness to the
    nearest target, greedily; likeness is (1 + cosine) / 2 of embeddings from their mean. Utility is the gain, never
    growing. The first picks serve one target after the other; what follows is nearest to any. Targets are embeddings
    of items that the model gets wrong, or of a class too rare to be found otherwise. Costs one pass of n d t, and holds
    n t likenesses: 80 MB for twenty targets in a million.

    Kothawade, Beck, Killamsetty & Iyer, *SIMILAR: submodular information measures based active learning in realistic
    scenarios*, NeurIPS 2021, 2107.00717 (its FLQMI).
    """

    needs = Needs.EMBEDDINGS | Needs.TARGETS
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    relevance: float = parameter(1.0, 0.0, 1e3)

    def select(self, request: Request) -> Selection:
        assert request.embeddings is not None
        assert request.targets is not None
        mean = sphere(request, request.embeddings.shape[1]).project.mean
        rows, gains, likeness = kernels.seek(request.embeddings, mean, request.targets, request.budget, self.relevance)
        return request.take(
            rows,
            gains,
            reason="its likeness to the nearest target is {likeness:.0%}",
            diagnostics={"targets": len(request.targets), "pool": len(request.ids)},
            likeness=likeness[rows],
        )

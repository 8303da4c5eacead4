"""Typical items first, small margins later: TCM."""

from dataclasses import dataclass, replace

from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.registry import create, register
from strategies.running import run


@register("tcm")
@dataclass(frozen=True)
class Tcm(Strategy):
    """TypiClust below `labels_per_class` labels a class, then margin.

    Utility is that of the strategy in charge, which ``diagnostics["chosen"]`` names. `auto` is the same idea with
    parts that did better here; this is the published pair, to compare with.

    Doucet, Estermann, Aczel & Wattenhofer, *Bridging diversity and uncertainty in active learning with self-supervised
    pre-training*, 2024, 2403.03728.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    labels_per_class: int = parameter(20, 0, 10_000)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        few = request.labels < self.labels_per_class * request.probabilities.shape[1]
        name = "typiclust" if few else "margin"
        selection = run(create(name), request)
        return replace(selection, diagnostics={**selection.diagnostics, "chosen": name})

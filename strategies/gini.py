"""Largest Gini impurity."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("gini")
@dataclass(frozen=True)
class Gini(Pointwise):
    """Pick the items of which two draws from the predicted distribution would differ most often.

    Utility is ``1 - Σ p²`` in [0, 1 - 1/K], from probabilities (n, K): the expected squared error of the model about
    itself. Between `least_confidence` and `entropy`, and less than entropy moved by a tail of small probabilities.

    Gini, *Variabilità e mutabilità*, 1912; as an acquisition: Settles, *Active learning literature survey*, 2009.
    """

    needs = Needs.PROBABILITIES

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        impurity = kernels.gini(request.probabilities)
        return Scores(impurity, "two guesses by its odds would differ {odds:.0%} of the time", {"odds": impurity})

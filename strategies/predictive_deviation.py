"""Largest predictive deviation."""

from dataclasses import dataclass

import numpy as np

from strategies.contract import Needs, Request, Task
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("predictive_deviation")
@dataclass(frozen=True)
class PredictiveDeviation(Pointwise):
    """Pick the items of whose number the model is least sure.

    Utility is the predictive standard deviation (n,), above zero, in the labels' own unit. Of a linear model it grows
    with the distance from what is labelled, and the numbers themselves play no part in the order; it likes outliers,
    and likes of one item (see `distinct`).

    MacKay, *Information-based objective functions for active data selection*, Neural Computation 1992.
    """

    needs = Needs.DEVIATIONS
    tasks = frozenset({Task.REGRESSION})

    def score(self, request: Request) -> Scores:
        assert request.deviations is not None
        deviations = np.asarray(request.deviations, dtype=np.float32)
        return Scores(deviations, "its number may be off by {deviation:.3g}", {"deviation": deviations})

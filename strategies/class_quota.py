"""No class takes more than its share, around any strategy."""

import math
from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, parameter
from strategies.registry import register
from strategies.wrapping import Wrapper, narrowed, ranking


@register("class_quota")
@dataclass(frozen=True)
class ClassQuota(Wrapper):
    """Take the picks of `of` in their order, until a predicted class has its `share` of the batch.

    The most probable class counts, from probabilities (n, K), and a share is at least one pick and at least 1/K. `of`
    is asked for a batch `depth` times as large; where the classes in it run out, the batch is filled up in order, and
    ``diagnostics["filled_up"]`` says by how many. For rare classes themselves see `class_balanced_margin`.
    """

    needs = Needs.PROBABILITIES
    cost = Cost.SHORTLIST

    share: float = parameter(0.3, 0.0, 1.0)
    depth: int = parameter(20, 1, 1000)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        ranked, rows = ranking(self, request, self.depth)
        classes = request.probabilities.shape[1]
        most = max(1, math.ceil(max(self.share, 1 / classes) * request.budget))
        predicted = request.probabilities[rows].argmax(axis=1)
        return narrowed(ranked, np.flatnonzero(kernels.turns(predicted) < most), request.budget)

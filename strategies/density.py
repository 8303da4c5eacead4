"""Most like the rest of the pool: information density."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request, Task, parameter
from strategies.pointwise import Pointwise, Scores
from strategies.randomness import sample
from strategies.registry import register


@register("density")
@dataclass(frozen=True)
class Density(Pointwise):
    """Pick the items that are most like the pool: mean cosine to it.

    Utility is the mean cosine, in [-1, 1], to `targets` items drawn uniformly, from embeddings (n, d). Alone it picks
    one crowd over and over; it is meant as a factor, ``product: {of: entropy, by: density}``, against outliers.

    Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    needs = Needs.EMBEDDINGS
    tasks = frozenset(Task)
    lowest = -1.0

    targets: int = parameter(10_000, 1, 10**6)

    def score(self, request: Request) -> Scores:
        assert request.embeddings is not None
        aims = sample(request.ids, request.seed + 1, self.targets)
        cosine = kernels.mean_cosine(request.embeddings, np.asarray(request.embeddings[aims]))
        said = {"targets": len(aims), "pool": len(request.ids)}
        return Scores(cosine, "its mean cosine to the pool is {cosine:.2f}", {"cosine": cosine}, diagnostics=said)

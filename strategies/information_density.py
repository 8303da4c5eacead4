"""Doubtful and typical: information density."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request, parameter
from strategies.pointwise import Pointwise, Scores
from strategies.randomness import sample
from strategies.registry import register


@register("information_density")
@dataclass(frozen=True)
class InformationDensity(Pointwise):
    """Pick the items of highest entropy times density, so that an outlier is not asked about for being odd.

    Utility is ``entropy · max(0, mean cosine)^beta``, the cosine to `targets` items drawn uniformly, from embeddings
    (n, d). Embeddings that are centred have a mean cosine near zero everywhere: leave them as the encoder made them.
    Each item is scored by itself, so a crowd of likes fills a batch.

    Settles & Craven, *An analysis of active learning strategies for sequence labeling tasks*, EMNLP 2008.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS

    beta: float = parameter(1.0, 0.0, 10.0)
    targets: int = parameter(10_000, 1, 10**6)

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        assert request.embeddings is not None
        aims = sample(request.ids, request.seed + 1, self.targets)
        cosine = kernels.mean_cosine(request.embeddings, np.asarray(request.embeddings[aims]))
        doubt = kernels.entropy(request.probabilities)
        return Scores(
            doubt * np.maximum(cosine, 0) ** self.beta,
            "its entropy is {doubt:.2f} and its mean cosine to the pool {cosine:.2f}",
            {"doubt": doubt, "cosine": cosine},
            diagnostics={"targets": len(aims), "pool": len(request.ids)},
        )

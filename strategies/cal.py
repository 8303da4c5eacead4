"""Predicted unlike labelled neighbours: contrastive active learning."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, parameter
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("cal")
@dataclass(frozen=True)
class Cal(Pointwise):
    """Pick the items that the head predicts unlike their nearest labelled items.

    Utility is the mean over the `neighbours` nearest labelled items of KL(theirs ‖ its), in nats, from probabilities
    (n, K), Euclidean distances of embeddings (n, d), and the head's own predictions for labelled items. Without
    labels it is the entropy. Close to the decision boundary, on the side where labels are; blind to near-duplicates.

    Margatina, Vernikos, Barrault & Aletras, *Active learning by acquiring contrastive examples*, EMNLP 2021,
    2109.03764.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS | Needs.LINEAR_HEAD
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    neighbours: int = parameter(10, 1, 1000)

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        assert request.embeddings is not None
        assert request.head_weights is not None
        assert request.head_bias is not None
        labelled = request.labelled_embeddings
        if labelled is None or len(labelled) == 0:
            doubt = kernels.entropy(request.probabilities)
            return Scores(doubt, "no labelled item to compare with, and its entropy is {doubt:.2f}", {"doubt": doubt})
        said = kernels.head_probabilities(labelled, request.head_weights, request.head_bias)
        apart = kernels.contrast(request.embeddings, request.probabilities, labelled, said, self.neighbours)
        return Scores(
            np.maximum(apart, 0),
            "its prediction is {apart:.2f} nats from those of labelled items near it",
            {"apart": apart},
            diagnostics={"neighbours": min(self.neighbours, len(labelled))},
        )

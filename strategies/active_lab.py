"""A new item or a second opinion, in one queue: ActiveLab."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("active_lab")
@dataclass(frozen=True)
class ActiveLab(Pointwise):
    """Pick the items whose label is least sure, whether they have labels already or not.

    Candidates may have votes (n, A), the classes that annotators gave them. A label is as sure as the head and the
    annotators together make it, each weighed by how well it agrees with the others; every item is then drawn to 1/K by
    the weight of one vote, so that a vote more always counts. Utility is one minus that, in [0, 1 - 1/K]. Without any
    votes it is the order of `least_confidence`. It gives the item, not the annotator; keep who voted from voting again.

    The paper fits a temperature to the head first; here probabilities are taken to mean what they say.

    Goh & Mueller, *ActiveLab: active learning with re-labeling by multiple annotators*, 2023, 2301.11856.
    """

    needs = Needs.PROBABILITIES
    uses = Needs.VOTES

    def score(self, request: Request) -> Scores:
        assert request.probabilities is not None
        n, classes = request.probabilities.shape
        sure = kernels.top2(request.probabilities)[0].astype(np.float64)
        given, weight, own, one = np.zeros(n, dtype=np.int64), np.zeros(n), 1.0, 1.0
        if request.votes is not None:
            given = (request.votes >= 0).sum(axis=1)
            rows = np.flatnonzero(given)
            voters = np.flatnonzero((request.votes >= 0).any(axis=0))
            if len(rows):
                votes = request.votes[rows][:, voters]
                consensus = kernels.crowdlab(votes, request.probabilities[rows])
                sure[rows], own, one = consensus.quality, consensus.model, float(consensus.annotators.mean())
                weight[rows] = (votes >= 0) @ consensus.annotators
        score = (sure * (weight + own) + one / classes) / (weight + own + one)
        return Scores(
            1 - score,
            "with {given} votes, its label is {sure:.0%} sure",
            {"given": given, "sure": sure},
            diagnostics={"with_votes": int((given > 0).sum()), "model_weight": own, "annotator_weight": one},
        )

"""Labels that leave the head least in doubt: BAIT."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("bait")
@dataclass(frozen=True)
class Bait(Strategy):
    """Pick the items whose labels, with those there are, bring the head's expected error on the pool down most.

    Minimises ``tr[(F_labelled + F_batch + ridge·I)⁻¹ F_pool]``: greedily `forward` × b items in, then the least
    missed out again until b are left. F sums ``(1 - Σ p²) x xᵀ``: the Fisher information of a logistic head in its
    trace form, which leaves out how classes lean on each other, on unit vectors x of `dimensions` principal
    components. Labelled items have the doubt of the linear head, where it is there, and the pool's mean doubt
    otherwise. Utility is what a pick took off the trace when it came in, not falling along the batch. It takes
    variety and doubt into account at once, and costs candidates · `dimensions` a step. A pool beyond `candidates` is
    represented by a uniform sample.

    Ash, Goel, Krishnamurthy & Kakade, *Gone fishing: neural active learning with Fisher embeddings*, NeurIPS 2021,
    2106.09675.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED | Needs.LINEAR_HEAD
    cost = Cost.SHORTLIST

    ridge: float = parameter(1.0, 1e-6, 1e6)
    forward: float = parameter(2.0, 1.0, 10.0)
    dimensions: int = parameter(64, 1, 512)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        b = request.budget
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * b))
        on_sphere = sphere(request, self.dimensions)
        points, labelled = (part.double().numpy() for part in (on_sphere(rows), on_sphere.labelled()))
        doubt = kernels.gini(request.probabilities[rows]).astype(np.float64)
        pool = kernels.fisher(points, doubt) / len(rows)
        known = kernels.fisher(labelled, _labelled_doubt(request, float(doubt.mean())))
        known += self.ridge * np.eye(len(known))
        picks, took, trace = kernels.least_trace(points, doubt, known, pool, b, min(len(rows), round(self.forward * b)))
        return request.take(
            rows[picks],
            took,
            reason="with those before it, it brought the expected error down by {took:.2g}",
            diagnostics={"candidates": len(rows), "pool": len(request.ids), "trace": trace},
            took=took,
        )


def _labelled_doubt(request: Request, otherwise: float) -> NDArray[np.float64]:
    """1 - Σ p² of every labelled item."""
    labelled, weights, bias = request.labelled_embeddings, request.head_weights, request.head_bias
    if labelled is None:
        return np.empty(0)
    if weights is None or bias is None:
        return np.full(len(labelled), otherwise)
    logits = labelled.astype(np.float64) @ weights + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return kernels.gini(odds / odds.sum(axis=1, keepdims=True)).astype(np.float64)

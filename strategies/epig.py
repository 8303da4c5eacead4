"""Largest information about other predictions: EPIG."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Needs, Request, Selection, parameter
from strategies.pointwise import Pointwise, Scores
from strategies.randomness import salted, sample
from strategies.registry import register


@register("epig")
@dataclass(frozen=True)
class Epig(Pointwise):
    """Pick the items whose label tells most about the predictions of the rest of the pool.

    Utility is the mean over `targets` x* of the mutual information of the labels of x and x*, in nats, from samples
    (T, n, K). `bald` counts whatever tells the heads apart, also where that changes no prediction; this does not, and
    so leaves alone outliers that are like nothing in the pool. The targets are drawn uniformly from the pool, and
    ``diagnostics["targets"]`` says how many. No item has more than its `bald`, so only the `shortlist` highest by that
    are looked at, at T·targets·K² each; ``diagnostics["most_outside"]`` is the most that any other can have: where the
    last pick has more, nothing was lost.

    Bickford Smith, Kirsch, Farquhar, Gal, Foster & Rainforth, *Prediction-oriented Bayesian active learning*,
    AISTATS 2023, 2304.08151.
    """

    needs = Needs.SAMPLES

    targets: int = parameter(100, 1, 10_000)
    shortlist: int = parameter(20_000, 1, 10**8)

    def score(self, request: Request) -> Scores:
        return self._scores(request, np.arange(len(request.ids)), {})

    def select(self, request: Request) -> Selection:
        assert request.samples is not None
        bound = kernels.information(request.samples)
        order = np.argsort(-bound, kind="stable")
        looked, after = np.split(order, [max(self.shortlist, request.budget)])
        said = {"looked_at": len(looked), "most_outside": float(bound[after].max(initial=0))}
        return self._scores(request, looked, said).best(request)

    def _scores(self, request: Request, rows: NDArray[np.int64], said: dict[str, float]) -> Scores:
        """Scores of these rows; those of the others are minus infinity."""
        assert request.samples is not None
        aims = sample(request.ids, salted(request.seed, "epig"), self.targets)
        nats = np.full(len(request.ids), -np.inf, dtype=np.float32)
        nats[rows] = kernels.predictive_information(request.samples, rows, aims)
        facts = {"targets": len(aims), "pool": len(request.ids), **said}
        return Scores(nats, "its label tells {nats:.2g} nats about another's", {"nats": nats}, diagnostics=facts)

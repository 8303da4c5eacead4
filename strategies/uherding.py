"""Coverage of what is uncertain: UHerding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("uherding")
@dataclass(frozen=True)
class UHerding(Strategy):
    """Pick the items that cover the uncertain part of the pool best.

    Maximises mean over targets x of u(x) · max over labelled and picked s of exp(-‖x - s‖²/w²), greedily, on unit
    vectors of `dimensions` principal components. u is ``1 - (p1 - p2)`` at `temperature` (see below), and 1 without
    labels: then this is `max_herding`. w is the smallest distance above zero between two labelled items, `width` at
    most: it falls as labels grow, and coverage turns into uncertainty by itself. Utility is the gain, never growing.
    Beyond `targets` and `candidates`, uniform samples; the greedy itself is exact. It needs probabilities that
    mean what they say: the paper fits the temperature on held-out labels, as a calibrated head has done already.

    Bae, Oliveira & Sutherland, *Uncertainty herding: one active learning method for all label budgets*, ICLR 2025,
    2412.20644.
    """

    needs = Needs.PROBABILITIES | Needs.EMBEDDINGS
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    width: float = parameter(1.0, 1e-3, 1e3)
    temperature: float = parameter(1.0, 0.01, 100.0)
    dimensions: int = parameter(128, 1, 4096)
    targets: int = parameter(2_000, 1, 100_000)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        aims = sample(request.ids, request.seed + 1, self.targets)
        on_sphere = sphere(request, self.dimensions)
        labelled = on_sphere.labelled()
        width = min(self.width, kernels.smallest_distance(labelled))
        doubt: NDArray[np.float32] = np.ones(len(aims), dtype=np.float32)
        if len(labelled):
            first, second = kernels.top2(kernels.tempered(request.probabilities[aims], self.temperature))
            doubt = (1 - (first - second)).astype(np.float32)
        picks, gains = kernels.max_herding(on_sphere(rows), on_sphere(aims), labelled, request.budget, width, doubt)
        return request.take(
            rows[picks],
            gains,
            reason="it brings the coverage of the pool's doubts up by {gain:.2g}",
            diagnostics={"candidates": len(rows), "targets": len(aims), "pool": len(request.ids), "width": width},
            gain=gains,
        )

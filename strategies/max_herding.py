"""Coverage by a smooth kernel: MaxHerding."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("max_herding")
@dataclass(frozen=True)
class MaxHerding(Strategy):
    """Pick the items that make the pool best covered: each adds most to the mean likeness to the nearest pick.

    Maximises mean over targets x of max over labelled and picked s of exp(-‖x - s‖²/width²), greedily, on unit
    vectors of `dimensions` principal components. Utility is the gain in that mean, never growing along the batch.
    The best start below fifty labels where the head learns from labels alone: it needs no model, and random needed
    twice the labels (CIFAR-10, 45 against 100). With a head that the pool helps, `typiclust` is better.
    Pools beyond `targets` and `candidates` are represented by uniform samples; the greedy itself is exact. A batch
    larger than `targets` has nothing left to gain at its end, and goes by id there.

    Bae, Noh & Sutherland, *Generalized coverage for more robust low-budget active learning*, ECCV 2024, 2407.12212.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    width: float = parameter(1.0, 1e-3, 1e3)
    dimensions: int = parameter(128, 1, 4096)
    targets: int = parameter(2_000, 1, 100_000)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        n = len(request.ids)
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        aims = sample(request.ids, request.seed + 1, self.targets)
        on_sphere = sphere(request, self.dimensions)
        picks, gains = kernels.max_herding(
            on_sphere(rows), on_sphere(aims), on_sphere.labelled(), request.budget, self.width
        )
        return request.take(
            rows[picks],
            gains,
            reason="it brings the pool's coverage up by {gain:.2g}",
            diagnostics={"candidates": len(rows), "targets": len(aims), "pool": n},
            gain=gains,
        )

"""Coverage by cosine: facility location."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("facility_location")
@dataclass(frozen=True)
class FacilityLocation(Strategy):
    """Pick the items that make every item of the pool most like its nearest pick, by cosine.

    Maximises mean over targets x of max over labelled and picked s of (1 + cos(x, s)) / 2, greedily, on unit vectors
    of `dimensions` principal components. Utility is the gain in that mean, never growing along the batch, and the sum
    is at least 63 % of the best possible. `max_herding` is the same with a likeness that fades faster, and so minds the
    near more. Beyond `targets` and `candidates`, uniform samples; the greedy itself is exact.

    Wei, Iyer & Bilmes, *Submodularity in data subset selection and active learning*, ICML 2015.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    dimensions: int = parameter(128, 1, 4096)
    targets: int = parameter(2_000, 1, 100_000)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        aims = sample(request.ids, request.seed + 1, self.targets)
        on_sphere = sphere(request, self.dimensions)
        picks, gains = kernels.coverage(
            on_sphere(rows), on_sphere(aims), on_sphere.labelled(), request.budget, kernels.cosine
        )
        return request.take(
            rows[picks],
            gains,
            reason="it brings the pool's mean likeness to its nearest up by {gain:.2g}",
            diagnostics={"candidates": len(rows), "targets": len(aims), "pool": len(request.ids)},
            gain=gains,
        )

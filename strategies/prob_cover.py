"""As many items as possible within reach of a pick: ProbCover."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, parameter
from strategies.randomness import sample
from strategies.registry import register
from strategies.sphere import sphere


@register("prob_cover")
@dataclass(frozen=True)
class ProbCover(Strategy):
    """Pick the items within whose `radius` the most items lie that no labelled or picked item reaches yet.

    On unit vectors of `dimensions` principal components. With a `radius` of 0 it is the largest at which a share of
    `purity` of all balls hold one group only, where k-means makes as many groups as there are classes (10 if unknown).
    Utility is how many items a pick newly covers. Once all are covered, covering starts anew with what is left, where
    the authors' code would pick a labelled row. For cold starts; all hangs on the radius. Beyond `candidates`, a
    uniform sample.

    Yehuda, Dekel, Hacohen & Weinshall, *Active learning through a covering lens*, NeurIPS 2022, 2205.11320.
    """

    needs = Needs.EMBEDDINGS
    uses = Needs.LABELLED
    tasks = frozenset(Task)
    cost = Cost.SHORTLIST

    radius: float = parameter(0.0, 0.0, 2.0)
    purity: float = parameter(0.95, 0.0, 1.0)
    dimensions: int = parameter(128, 1, 4096)
    candidates: int = parameter(20_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        rows = sample(request.ids, request.seed, max(self.candidates, 2 * request.budget))
        on_sphere = sphere(request, self.dimensions)
        points = on_sphere(rows)
        radius = self.radius
        if radius == 0:
            group, _ = kernels.kmeans(points, min(request.classes or 10, len(points)), request.seed)
            radius = min(2.0, kernels.pure_radius(points, group, self.purity))
        picks, gains = kernels.ball_cover(points, on_sphere.labelled(), request.budget, radius)
        return request.take(
            rows[picks],
            gains,
            reason="{gain} items near it had no labelled or picked item near them",
            diagnostics={"radius": radius, "candidates": len(rows), "pool": len(request.ids)},
            gain=gains,
        )

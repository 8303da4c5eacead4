"""Labels that together tell most about the model: BatchBALD."""

from dataclasses import dataclass

import numpy as np

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy, highest, parameter
from strategies.randomness import salted
from strategies.registry import register


@register("batch_bald")
@dataclass(frozen=True)
class BatchBald(Strategy):
    """Pick items whose labels tell most, together, about which of the plausible heads is right.

    Greedy on the mutual information of the batch's labels and the head, from samples (T, n, K); so it picks no two
    items that tell the same. Utility is what a pick adds, in nats. The joint distribution is exact while it has at
    most `configurations` outcomes, K^b, and drawn beyond; candidates are the `shortlist` highest by `bald`.

    T heads can be told apart by log T nats and no more. Where the batch tells 99 % of that, the rest of it is filled up
    by `bald`, and ``diagnostics["filled_by_bald"]`` says by how many: with ten heads that may be after five picks.
    For batches of up to some tens with a hundred heads; for larger ones take `stochastic` with `bald`.

    Kirsch, van Amersfoort & Gal, *BatchBALD: efficient and diverse batch acquisition for deep Bayesian active
    learning*, NeurIPS 2019, 1906.08158 (greedy is within 1 - 1/e of the best, as the objective is submodular).
    """

    needs = Needs.SAMPLES
    cost = Cost.SHORTLIST

    shortlist: int = parameter(1_000, 1, 100_000)
    configurations: int = parameter(5_000, 1, 10**6)

    def select(self, request: Request) -> Selection:
        assert request.samples is not None
        b = request.budget
        alone = kernels.information(request.samples)
        best = highest(alone.astype(np.float64), request.ids, max(self.shortlist, b))
        rows = np.sort(best)
        picks, gains, exact = kernels.joint_information(
            request.samples[:, rows], b, self.configurations, salted(request.seed, "batch_bald")
        )
        joint = rows[picks]
        rest = best[~np.isin(best, joint)][: b - len(joint)]
        nats = np.concatenate([gains, alone[rest]])
        told = np.concatenate([np.full(len(joint), "with those before it"), np.full(len(rest), "taken alone")])
        return request.take(
            np.concatenate([joint, rest]),
            nats,
            reason="{told}, its label tells {nats:.2g} nats about which head is right",
            diagnostics={
                "exact_picks": exact,
                "drawn_picks": len(joint) - exact,
                "filled_by_bald": len(rest),
                "nats": round(float(gains.sum()), 4),
                "nats_possible": round(float(np.log(len(request.samples))), 4),
                "candidates": len(rows),
            },
            told=told,
            nats=nats,
        )

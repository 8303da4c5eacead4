"""Where predictions change class, for rare classes too: GALAXY."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Cost, Needs, Request, Selection, Strategy
from strategies.randomness import splitmix64, uniforms
from strategies.registry import register

_HALVES, _BESIDE, _BY_LOT = "halves the way between unlike labels", "lies beside a change of label", "was drawn by lot"


@register("galaxy")
@dataclass(frozen=True)
class Galaxy(Strategy):
    """Line up all items by how much they are of a class, and look for the place where labels change, class by class.

    On the line of class k, from surely k to surely not, labelled items stand where the head puts them, with what
    people said. A pick halves the shortest run of unlabelled items between neighbouring labels that differ; once no
    run is left, it is the item nearest to such a change; without any, it is drawn by lot. Each pick draws
    its class, so rare classes get as many. Utility is one over the run's length, or over the distance, or 0.

    Within a batch nobody has answered yet: a pick counts as labelled with the class predicted for it, whereas code
    that is around reads the true label. The lines are walked one by one, and the batch takes their picks in turn.

    Zhang, Katz-Samuels & Nowak, *GALAXY: graph-based active learning at the extreme*, ICML 2022, 2202.01402.
    """

    needs = Needs.PROBABILITIES | Needs.LINEAR_HEAD
    uses = Needs.LABELLED
    cost = Cost.SHORTLIST

    def select(self, request: Request) -> Selection:
        assert request.probabilities is not None
        n, classes = request.probabilities.shape
        said, known = _labelled(request, classes)
        predicted = request.probabilities.argmax(axis=1)
        lines = 1 if classes <= 2 else classes
        drawn = splitmix64(np.arange(request.budget, dtype=np.uint64) + np.uint64(request.seed % 2**32))
        turns = (drawn % np.uint64(lines)).astype(np.int64)
        lot = np.argsort(uniforms(request.ids, request.seed), kind="stable")
        picked = np.zeros(n, dtype=bool)
        found: list[tuple[int, int, float, str]] = []
        for k in np.unique(turns):
            place_of, line = _line(request.probabilities, said, known, predicted, picked, int(k))
            passed = 0
            for turn in range(int((turns == k).sum())):
                place = line.next()
                if place is None:
                    while picked[lot[passed]]:
                        passed += 1
                    row, utility, how = int(lot[passed]), 0.0, _BY_LOT
                    at = int(np.flatnonzero(place_of == row)[0])
                else:
                    at = place[0]
                    row, utility, how = int(place_of[at]), 1 / max(1, place[1]), _HALVES if place[2] else _BESIDE
                picked[row] = True
                line.put(at, int(predicted[row] == k))
                found.append((turn, row, utility, how))
        found.sort(key=lambda pick: pick[0])
        rows = [row for _, row, _, _ in found]
        return request.take(
            rows,
            [utility for _, _, utility, _ in found],
            reason="it {how}, on the line of a class",
            how=np.array([how for *_, how in found]),
        )


def _labelled(request: Request, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the head says of the labelled items, (l, K), and their classes."""
    labelled, known = request.labelled_embeddings, request.labelled_classes
    if labelled is None or known is None or request.head_weights is None or request.head_bias is None:
        return np.empty((0, classes)), np.empty(0, dtype=np.int64)
    return kernels.head_probabilities(labelled, request.head_weights, request.head_bias), known.astype(np.int64)


def _line(
    probabilities: NDArray[np.floating],
    said: NDArray[np.float64],
    known: NDArray[np.int64],
    predicted: NDArray[np.int64],
    picked: NDArray[np.bool_],
    k: int,
) -> tuple[NDArray[np.int64], kernels.Line]:
    """The row at each place, beyond n for labelled items, and the line of class k."""
    own = np.concatenate([probabilities[:, k], said[:, k]])
    best = np.concatenate([probabilities.max(axis=1), said.max(axis=1)])
    short = best - own if probabilities.shape[1] > 2 else -own
    place_of = np.lexsort((-best, short))
    labels = np.concatenate([np.where(picked, predicted == k, -1), known == k]).astype(np.int64)
    return place_of, kernels.Line(labels[place_of])

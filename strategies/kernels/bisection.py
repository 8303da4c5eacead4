"""Finding where labels change along a line, by bisection."""

import heapq
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray


class Line:
    """Places 0 … m - 1 in a row, some with a label 0 or 1, between which the label changes somewhere.

    `next` gives the place to ask about: the middle of the shortest run of bare places between neighbouring labels that
    differ; without such a run, the bare place nearest to a cut, which is where labelled places that differ touch.
    `put` gives a place its label. Both take logarithmic time, and the walk along a labelled run.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        """labels (m,): 0, 1, or -1 where bare."""
        self.labels = labels.copy()
        self.known: list[int] = np.flatnonzero(labels >= 0).tolist()
        self.runs: list[tuple[int, int, int]] = []
        self.edges: list[tuple[int, int, int, int]] = []
        for left, right in zip(self.known[:-1], self.known[1:], strict=True):
            self._join(left, right)

    def next(self) -> tuple[int, int, bool] | None:
        """A bare place, how long the run is or how far the cut, and whether it halves a run; None without either."""
        while self.runs:
            size, left, right = self.runs[0]
            if self._are_neighbours(left, right):
                return (left + right) // 2, size, True
            heapq.heappop(self.runs)
        while self.edges:
            distance, place, cut, step = self.edges[0]
            if self.labels[place] < 0:
                return place, distance, False
            heapq.heappop(self.edges)
            self._look(cut, step, place)
        return None

    def put(self, place: int, label: int) -> None:
        """Label a bare place."""
        self.labels[place] = label
        at = bisect_left(self.known, place)
        insort(self.known, place)
        if at > 0:
            self._join(self.known[at - 1], place)
        if at + 1 < len(self.known):
            self._join(place, self.known[at + 1])

    def _are_neighbours(self, left: int, right: int) -> bool:
        return self.known[bisect_left(self.known, left) + 1] == right

    def _join(self, left: int, right: int) -> None:
        """Note what lies between neighbouring labels."""
        if self.labels[left] == self.labels[right]:
            return
        if right - left > 1:
            heapq.heappush(self.runs, (right - left - 1, left, right))
        else:
            self._look(left, -1, left)
            self._look(right, 1, right)

    def _look(self, cut: int, step: int, start: int) -> None:
        """Note the first bare place from `start` on, away from the cut."""
        place = start
        while 0 <= place < len(self.labels) and self.labels[place] >= 0:
            place += step
        if 0 <= place < len(self.labels):
            heapq.heappush(self.edges, (abs(place - cut), place, cut, step))

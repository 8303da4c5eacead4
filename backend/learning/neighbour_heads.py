"""The head that also asks what it says of an item's neighbours in the pool. Torch-free for few items, as `heads` is."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.anchors import Anchors
from backend.learning.heads import Floats, Head

_BLOCK_ROWS = 8_192


def _empty() -> Floats:
    return np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class NeighbourHead(Head):
    """A linear head whose answer is the mean of its own and of those for the 15 nearest of m items of the pool.

    ``p ** (1 / sharpness)``, rows made to sum to one, for ``p = (own + mean of opinions[nearest]) / 2``. ``own`` is
    `Head.predict`, ``opinions`` (m, K) float32 what it was for those items, whose places are `Anchors`: ``projection``,
    ``offset``, ``centres``, ``starts`` and ``codes``. What asks for weights gets those of `own`.
    """

    form = "nextbatch-head-5"
    arrays = (*Head.arrays, "projection", "offset", "centres", "starts", "codes", "opinions", "sharpness")

    projection: Floats = field(default_factory=_empty)
    offset: Floats = field(default_factory=_empty)
    centres: Floats = field(default_factory=_empty)
    starts: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    codes: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    opinions: Floats = field(default_factory=_empty)
    sharpness: Floats = field(default_factory=lambda: np.ones(1, np.float32))

    @property
    def own(self) -> Head:
        return Head(self.classes, self.mean, self.scale, self.weights, self.bias, self.temperature)

    @property
    def parameters(self) -> int:
        return self.own.parameters + 1

    @cached_property
    def anchors(self) -> Anchors:
        """The items that it asks about."""
        return Anchors(self.projection, self.offset, self.centres, self.starts, self.codes)

    def predict(self, embeddings: NDArray[Any]) -> Floats:
        """Probabilities, (n, K) float32, as `Head.predict` reads and refuses embeddings."""
        return self._mean(super().predict(embeddings), self.anchors.neighbours(embeddings))

    def answer(self, embeddings: NDArray[Any], near: NDArray[np.int64]) -> Floats:
        """`predict` where the embeddings' `neighbours` (n, c) among the anchors are known."""
        return self._mean(super().predict(embeddings), near)

    def _mean(self, said: Floats, near: NDArray[np.int64]) -> Floats:
        for start in range(0, len(said), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            said[rows] += self.opinions[near[rows]].mean(axis=1)
        said /= 2
        np.power(said, 1 / self.sharpness, out=said)
        said /= said.sum(axis=1, keepdims=True)
        return said

    def logits(self, embeddings: NDArray[Any]) -> Floats:
        """The logarithms of `predict`."""
        logits: Floats = np.log(np.maximum(self.predict(embeddings), np.finfo(np.float32).tiny))
        return logits

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        m, r, cells = len(self.codes), self.offset.size, len(self.centres)
        own: dict[str, tuple[int, ...]] = {"projection": (self.mean.size, r), "offset": (r,), "centres": (cells, r)}
        own |= {"starts": (cells + 1,), "codes": (m, r), "opinions": (m, len(self.classes)), "sharpness": (1,)}
        return {**super()._shapes(), **own}

    def _problem(self) -> str | None:
        wrong = super()._problem()
        if wrong is None and not (self.starts[0] == 0 and self.starts[-1] == len(self.codes)):
            return "its cells do not hold its items"
        if wrong is None and not (np.diff(self.starts) > 0).all():
            return "one of its cells is empty"
        if wrong is None and not (self.opinions.min() >= 0 and self.opinions.max() <= 1 and self.sharpness[0] > 0):
            return "an opinion is no probability, or the sharpness not positive"
        return wrong

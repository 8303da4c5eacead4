"""Items of the pool that others are compared with: unit vectors in cells, a byte a number. Torch-free."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 15
"""How many the graph links an item to, and a head asks."""

PROBED = 16
"""Cells that a search looks into; a cell holds some 200 points."""

_BLOCK_ROWS = 8_192
_STEPS = 127  # a unit vector's numbers as bytes

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Anchors:
    """m points of a sphere in C cells, those of a cell side by side.

    An embedding (d,) is at ``embedding @ projection + offset``, made as long as one: projection (d, r) and offset (r,)
    float32. centres (C, r) float32, unit rows; starts (C + 1,) int32, where each cell begins and the last one ends;
    codes (m, r) int8, unit vectors times 127. No cell is empty.
    """

    projection: Floats
    offset: Floats
    centres: Floats
    starts: NDArray[np.int32]
    codes: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.codes)

    def neighbours(self, embeddings: NDArray[Any]) -> NDArray[np.int64]:
        """The `NEIGHBOURS` nearest of each embedding (n, d), block by block, as `nearest` finds them."""
        blocks = range(0, max(1, len(embeddings)), _BLOCK_ROWS)
        return np.concatenate([self.nearest(embeddings[start : start + _BLOCK_ROWS], NEIGHBOURS) for start in blocks])

    def nearest(self, embeddings: NDArray[Any], count: int) -> NDArray[np.int64]:
        """The c points of highest cosine to each embedding (n, d) among `PROBED` cells, (n, c) in no order.

        c is `count`, or m or `PROBED` if they are less. Costs n (C + 3,200) r and 16 n c numbers. A row with a NaN gets
        any points.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            places = np.asarray(embeddings, np.float32) @ self.projection + self.offset
            near = places @ self.centres.T
        count, probes = min(count, len(self), PROBED), min(PROBED, len(self.centres))
        probed = np.argpartition(near, -probes, axis=1)[:, -probes:].ravel()
        pairs = np.argsort(probed, kind="stable")
        cells, begins = np.unique(probed[pairs], return_index=True)
        best = np.full((len(pairs), count), -np.inf, np.float32)
        index = np.zeros((len(pairs), count), np.int64)
        for cell, mine in zip(cells, np.split(pairs, begins)[1:], strict=True):
            first, last = self.starts[cell : cell + 2]
            cosines = places[mine // probes] @ self.codes[first:last].T.astype(np.float32)
            width = min(count, last - first)
            top = np.argpartition(cosines, -width, axis=1)[:, -width:]
            best[mine, :width] = np.take_along_axis(cosines, top, axis=1)
            index[mine, :width] = first + top
        shape = len(places), probes * count
        top = np.argpartition(best.reshape(shape), -count, axis=1)[:, -count:]
        found: NDArray[np.int64] = np.take_along_axis(index.reshape(shape), top, axis=1)
        return found


def encode(points: Floats) -> NDArray[np.int8]:
    """Unit vectors as codes."""
    codes: NDArray[np.int8] = np.rint(points * _STEPS).astype(np.int8)
    return codes

"""How far each row is from the nearest centre, brought up to date only where somebody asks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import as_tensor

_EPSILON = float(np.finfo(np.float32).eps)
Factors = Callable[[Any], NDArray[np.float32]]
"""Rows (a slice or indices) to their second factor, (r, K) float32."""


class Nearness:
    """Least squared distance of rows (n, d) to a growing set of centres. Distances only fall, so an old one bounds the
    new one from above: `update` some rows when they matter, `refresh` all of them with one product when many do.

    With `factors`, a row is the outer product of its factor a (K,) and its point h (d,), never written out:
    ‖g - g'‖² = ‖a‖²‖h‖² + ‖a'‖²‖h'‖² - 2 (a·a') (h·h'). Without, distances are taken from the mean, which cancels.
    What float32 cannot tell from zero is zero. Holds twelve bytes a row, and the centres.
    """

    def __init__(self, points: NDArray[Any], centres: NDArray[Any], room: int, factors: Factors | None = None) -> None:
        n, d = points.shape
        self.points, self.factors = points, factors
        self.origin = torch.zeros(d)
        if factors is None:
            total = np.zeros(d)
            for rows in blocks(n, 16 * d):
                total += points[rows].sum(axis=0, dtype=np.float64)
            self.origin = torch.from_numpy((total / max(1, n)).astype(np.float32))
        self.count = len(centres)
        classes = 0 if factors is None else factors(slice(0, 1)).shape[1]
        given = as_tensor(centres).reshape(-1, d) - self.origin
        self.shelf = torch.cat([given.double(), torch.empty((room, d), dtype=torch.float64)])
        self.shelf_factors = torch.empty((len(self.shelf), classes), dtype=torch.float64)
        self.lengths = self.shelf.square().sum(dim=1)
        self.norms = torch.empty(n)
        """Squared length of each row."""
        for rows in blocks(n, 8 * d):
            self.norms[rows] = self._row(rows).square().sum(dim=1)
            if factors is not None:
                self.norms[rows] *= self._factor(rows).square().sum(dim=1)
        self.least = torch.full((n,), torch.inf)
        """(n,) float32, exact for a row that has seen every centre, else a bound from above."""
        self.seen = np.zeros(n, dtype=np.int32)
        self.fresh = 0
        """Centres that every row has seen."""

    def add(self, row: int) -> None:
        """Make a row a centre."""
        self.shelf[self.count] = self._row(slice(row, row + 1))[0]
        self.lengths[self.count] = self.shelf[self.count].square().sum()
        if self.factors is not None:
            self.shelf_factors[self.count] = self._factor(slice(row, row + 1))[0]
            self.lengths[self.count] *= self.shelf_factors[self.count].square().sum()
        self.count += 1
        self.least[row] = 0

    def update(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Bring these rows up to date, in float64, and give their least squared distances, (r,)."""
        start = int(self.seen[rows].min(initial=self.count))
        index = torch.from_numpy(rows)
        for some in blocks(self.count - start, 16 * len(rows) + 16 * self.points.shape[1]):
            new = slice(start + some.start, start + some.stop)
            self.least[index] = torch.minimum(self.least[index], self._squared(rows, new, exact=True))
        self.seen[rows] = self.count
        result: NDArray[np.float32] = self.least[index].numpy()
        return result

    def refresh(self) -> None:
        """Bring every row up to date: a pass over the points, and one matrix product with the new centres."""
        n, d = self.points.shape
        for some in blocks(self.count - self.fresh, 32 * d):
            new = slice(self.fresh + some.start, self.fresh + some.stop)
            for rows in blocks(n, 8 * d + 12 * (new.stop - new.start)):
                self.least[rows] = torch.minimum(self.least[rows], self._squared(rows, new, exact=False))
        self.fresh = self.count
        self.seen[:] = self.count

    def _row(self, rows: Any) -> torch.Tensor:
        return as_tensor(self.points[rows]).sub_(self.origin)

    def _factor(self, rows: Any) -> torch.Tensor:
        assert self.factors is not None
        return torch.from_numpy(self.factors(rows))

    def _squared(self, rows: Any, new: slice, *, exact: bool) -> torch.Tensor:
        """Squared distance of these rows to the nearest of these centres, (r,) float32."""
        kind = torch.float64 if exact else torch.float32
        points = self._row(rows).to(kind)
        mine, theirs = self.norms[rows], self.lengths[new].to(kind)
        product = points @ self.shelf[new].to(kind).T
        if exact:
            mine = points.square().sum(dim=1)
        if self.factors is not None:
            factors = self._factor(rows).to(kind)
            product.mul_(factors @ self.shelf_factors[new].to(kind).T)
            if exact:
                mine = mine * factors.square().sum(dim=1)
        least, which = product.mul_(-2).add_(theirs).min(dim=1)
        nil = (1e-12 if exact else 4 * _EPSILON * points.shape[1] ** 0.5) * (mine + theirs[which])
        least = least + mine
        return torch.where(least > nil, least, 0.0).float()

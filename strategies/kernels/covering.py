"""k-center: farthest-first traversal, exact and lazy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import as_tensor

_EPSILON = float(np.finfo(np.float32).eps)
_INNER = 8
"""The part of a shortlist that is followed pick by pick: of 8,192 rows of 512, what a core's cache holds."""
_FEW = 256
"""Contenders up to which the centres that could be nearest to one of them are few, too."""
_BLOCK_BYTES = 16 << 20


def k_center(
    points: NDArray[Any], centres: NDArray[Any], picks: int, shortlist: int = 8192
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pick, again and again, the row farthest from everything picked and from `centres`.

    points (n, d) and centres (l, d), float16 or float32 → rows in order, and each one's distance to the nearest
    centre when it was picked, never growing. With no centres the first row is the one nearest to the mean, and its
    distance is the farthest row's. Ties go to the lower row; distances are compared as float32 of float64.

    The naive version touches all rows for every pick. Distances only fall, so here the farthest eighth of the
    `shortlist` farthest rows is followed pick by pick, and the rest keep old distances as upper bounds. Only when one
    of them could win, the shortlist, and if need be all rows, are refreshed by one matrix product. Products are
    float32, with an error bound; where it leaves more than one contender, float64 decides. So the picks are those of
    the naive version.
    """
    state = _State(points, as_tensor(centres), picks, shortlist)
    order, distances = [], []
    if len(centres) == 0:
        first = _most_central(points)
        state.add(first)
        order.append(first)
        _, far = state.farthest()
        distances.append(far)
    while len(order) < picks:
        row, far = state.farthest()
        if far == 0:  # what is left doubles a centre, and will for ever
            rest = np.setdiff1d(np.arange(len(points)), order)[: picks - len(order)]
            order.extend(rest.tolist())
            distances.extend([0.0] * len(rest))
            break
        state.add(row)
        order.append(row)
        distances.append(far)
    return np.array(order, dtype=np.int64), np.array(distances, dtype=np.float64)


@dataclass
class _Shortlist:
    """The farthest rows: their values, squared norms, least squared distances, and exact ones where known."""

    rows: NDArray[np.int64]
    points: torch.Tensor
    norms: torch.Tensor
    least: torch.Tensor
    outside: float
    """No row outside has a squared distance above this."""
    exact: torch.Tensor
    seen: NDArray[np.int64]
    """How many centres `exact` takes into account."""
    fresh: int
    """How many `least` does."""


class _State:
    def __init__(self, points: NDArray[Any], centres: torch.Tensor, picks: int, size: int) -> None:
        n, d = points.shape
        self.points, self.size = points, size
        self.shelf = torch.cat([centres.reshape(-1, d), torch.empty((picks, d))])
        self.lengths = self.shelf.square().sum(dim=1)
        self.count = len(centres)
        self.picked = np.zeros(n, dtype=bool)
        self.error = _EPSILON * (4 + 2 * d**0.5)
        """Relative error of a float32 product; rounding errors grow as √d (Higham & Mary, 2019), doubled for safety."""
        self.norms = torch.empty(n)
        for rows in blocks(n, 8 * d, _BLOCK_BYTES):
            self.norms[rows] = as_tensor(points[rows]).square_().sum(dim=1)
        self.least = torch.full((n,), torch.inf)
        self.pending = 0
        self.short: _Shortlist | None = None
        """What is refreshed together."""
        self.inner: _Shortlist | None = None
        """The farthest of these, up to date with every centre: small enough for a core's cache."""

    def add(self, row: int) -> None:
        """Make a row a centre."""
        self.shelf[self.count] = as_tensor(self.points[row])
        self.lengths[self.count] = self.shelf[self.count].square().sum()
        self.count += 1
        self.picked[row] = True
        self.least[row] = -torch.inf
        for one in (self.short, self.inner):
            if one is not None:
                one.least[torch.from_numpy(one.rows == row)] = -torch.inf
        if self.inner is not None:
            self._update(self.inner)

    def farthest(self) -> tuple[int, float]:
        """The row farthest from all centres, and its distance."""
        found = None
        if self.inner is not None:
            found = self._best_of(self.inner)
        if found is None and self.short is not None:
            self._update(self.short)
            found = self._best_inside(self.short)
        if found is None:
            self._refresh()
            self.short = self._shortlist()
            found = self._best_inside(self.short)
        return found or self._best_of_all()

    def _best_inside(self, short: _Shortlist) -> tuple[int, float] | None:
        """The farthest row of a fresh shortlist, if no row outside could be as far; follow its farthest from now on."""
        self.inner = self._farthest_of(short)
        return self._best_of(self.inner) or self._best_of(short)

    def _update(self, short: _Shortlist) -> None:
        """Bring a shortlist's least squared distances up to date."""
        new = slice(short.fresh, self.count)
        if new.start == new.stop:
            return
        squared = torch.addmm(self.lengths[new], short.points, self.shelf[new].T, alpha=-2).amin(dim=1)
        short.least = torch.minimum(short.least, squared.add_(short.norms).clamp_min_(0))
        short.fresh = self.count

    def _best_of(self, short: _Shortlist) -> tuple[int, float] | None:
        """The farthest row of the shortlist, or None if a row outside could be as far."""
        slack = self._slack(short.norms, short.least)
        bar = float((short.least - slack).max())
        if bar <= short.outside:
            return None
        contenders = torch.nonzero(short.least + slack >= bar).flatten().numpy()
        squared = self._exact(short, contenders)
        best = int(squared.argmax())
        return int(short.rows[contenders[best]]), float(squared[best]) ** 0.5

    def _slack(self, norms: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """How far a computed squared distance may be off: error · (‖x‖ + ‖c‖)², with ‖c‖ ≤ ‖x‖ + distance."""
        return torch.where(least.isfinite(), self.error * (8 * norms + 2 * least.clamp_min(0)), 0)

    def _exact(self, short: _Shortlist, contenders: NDArray[np.int64]) -> NDArray[np.float32]:
        """float64 squared distances of contenders as float32; only centres that are new to them are looked at."""
        start = int(short.seen[contenders].min())
        index = torch.from_numpy(contenders)
        if start < self.count:
            squared = self._least_squared(short.points[index], slice(start, self.count))
            short.exact[index] = torch.minimum(short.exact[index], squared)
            short.seen[contenders] = self.count
        result: NDArray[np.float32] = short.exact[index].float().numpy()
        return result

    def _least_squared(self, points: torch.Tensor, centres: slice) -> torch.Tensor:
        """Squared distance to the nearest of some centres, (m,) float64, by differences: exactly 0 for a double.

        Only of centres that a float32 product with its error bound leaves as the nearest of some point.
        """
        if len(points) > _FEW:
            return _least_squared(points, self.shelf[centres])
        norms = points.square().sum(dim=1, keepdim=True)
        squared = torch.addmm(norms, points, self.shelf[centres].T, alpha=-2) + self.lengths[centres]
        slack = 2 * self.error * (norms + self.lengths[centres])
        could = (squared - slack <= (squared + slack).amin(dim=1, keepdim=True)).any(dim=0)
        return _least_squared(points, self.shelf[centres][could])

    def _best_of_all(self) -> tuple[int, float]:
        """The farthest row where near-ties reach beyond the shortlist: as exact, slower, in no more memory."""
        slack = self._slack(self.norms, self.least)
        bar = (self.least - slack).max()
        contenders = torch.nonzero(self.least + slack >= bar).flatten().numpy()
        squared = np.empty(len(contenders), dtype=np.float32)
        for rows in blocks(len(contenders), 16 * self.points.shape[1]):
            some = as_tensor(self.points[contenders[rows]])
            squared[rows] = self._least_squared(some, slice(0, self.count)).float().numpy()
        best = int(squared.argmax())
        return int(contenders[best]), float(squared[best]) ** 0.5

    def _refresh(self) -> None:
        """Bring every row's least squared distance up to date with the centres added since the last time."""
        n, d = self.points.shape
        for some in blocks(self.count - self.pending, 16 * d):
            new = slice(self.pending + some.start, self.pending + some.stop)
            centres = self.shelf[new].T.contiguous()
            for rows in blocks(n, 8 * d + 4 * centres.shape[1], _BLOCK_BYTES):
                product = torch.addmm(self.lengths[new], as_tensor(self.points[rows]), centres, alpha=-2)
                squared = product.amin(dim=1).add_(self.norms[rows]).clamp_min_(0)
                self.least[rows] = torch.minimum(self.least[rows], squared)
        self.pending = self.count
        self.least[torch.from_numpy(self.picked)] = -torch.inf

    def _shortlist(self) -> _Shortlist:
        """The rows that could be farthest, in ascending order."""
        upper = (self.least + self._slack(self.norms, self.least)).numpy()
        rows: NDArray[np.int64] = np.arange(len(upper))
        outside = -np.inf
        if self.size < len(upper):
            split = np.argpartition(-upper, self.size)
            rows, outside = np.sort(split[: self.size]), float(upper[split[self.size :]].max())
        index = torch.from_numpy(rows)
        return self._listed(rows, as_tensor(self.points[rows]), self.norms[index], self.least[index], outside)

    def _farthest_of(self, short: _Shortlist) -> _Shortlist:
        """The rows of a shortlist that could be farthest."""
        upper = (short.least + self._slack(short.norms, short.least)).numpy()
        size = max(1, len(upper) // _INNER)
        if size == len(upper):
            return short
        split = np.argpartition(-upper, size)
        chosen = np.sort(split[:size])
        outside = max(short.outside, float(upper[split[size:]].max()))
        index = torch.from_numpy(chosen)
        return self._listed(short.rows[chosen], short.points[index], short.norms[index], short.least[index], outside)

    def _listed(
        self, rows: NDArray[np.int64], points: torch.Tensor, norms: torch.Tensor, least: torch.Tensor, outside: float
    ) -> _Shortlist:
        unknown = torch.full((len(rows),), torch.inf, dtype=torch.float64)
        return _Shortlist(rows, points, norms, least, outside, unknown, np.zeros(len(rows), np.int64), self.count)


def _least_squared(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared distance to the nearest centre, (m,) float64, by differences: exactly 0 for a double."""
    least = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for some in blocks(len(centres), 16 * centres.shape[1] + 8 * len(points)):
        apart = torch.cdist(points.double(), centres[some].double(), compute_mode="donot_use_mm_for_euclid_dist")
        torch.minimum(least, apart.amin(dim=1).square_(), out=least)
    return least


def _most_central(points: NDArray[Any]) -> int:
    """The row nearest to the mean, in float64 compared as float32."""
    n, d = points.shape
    total = np.zeros(d)
    for rows in blocks(n, 16 * d):
        total += np.asarray(points[rows], dtype=np.float64).sum(axis=0)
    squared = np.empty(n, dtype=np.float32)
    for rows in blocks(n, 16 * d):
        squared[rows] = np.square(np.asarray(points[rows], dtype=np.float64) - total / n).sum(axis=1)
    return int(squared.argmin())

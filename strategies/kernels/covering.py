"""k-center: farthest-first traversal, exact and lazy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import as_tensor

_EPSILON = float(np.finfo(np.float32).eps)


def k_center(
    points: NDArray[Any], centres: NDArray[Any], picks: int, shortlist: int = 8192
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pick, again and again, the row farthest from everything picked and from `centres`.

    points (n, d) and centres (l, d), float16 or float32 → rows in order, and each one's distance to the nearest
    centre when it was picked, never growing. With no centres the first row is the one nearest to the mean, and its
    distance is the farthest row's. Ties go to the lower row; distances are compared as float32 of float64.

    The naive version touches all rows for every pick. Distances only fall, so here the `shortlist` farthest rows are
    followed pick by pick, the rest keep old distances as upper bounds, and all rows are refreshed by one matrix
    product only when a row outside could win. Products are float32, with an error bound; where it leaves
    more than one contender, float64 decides. So the picks are those of the naive version.
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


class _State:
    def __init__(self, points: NDArray[Any], centres: torch.Tensor, picks: int, size: int) -> None:
        n, d = points.shape
        self.points, self.size = points, size
        self.shelf = torch.cat([centres.reshape(-1, d), torch.empty((picks, d))])
        self.count = len(centres)
        self.picked = np.zeros(n, dtype=bool)
        self.error = _EPSILON * (4 + 2 * d**0.5)
        """Relative error of a float32 product; rounding errors grow as √d (Higham & Mary, 2019), doubled for safety."""
        self.norms = torch.empty(n)
        for rows in blocks(n, 8 * d):
            self.norms[rows] = as_tensor(points[rows]).square_().sum(dim=1)
        self.least = torch.full((n,), torch.inf)
        self.pending = 0
        self.short: _Shortlist | None = None

    def add(self, row: int) -> None:
        """Make a row a centre."""
        centre = as_tensor(self.points[row])
        self.shelf[self.count] = centre
        self.count += 1
        self.picked[row] = True
        self.least[row] = -torch.inf
        if self.short is not None:
            short = self.short
            squared = short.norms + centre.square().sum() - 2 * (short.points @ centre)
            short.least = torch.minimum(short.least, squared.clamp_min_(0))
            short.least[torch.from_numpy(short.rows == row)] = -torch.inf

    def farthest(self) -> tuple[int, float]:
        """The row farthest from all centres, and its distance."""
        if self.short is not None:
            found = self._best_of(self.short)
            if found is not None:
                return found
        self._refresh()
        self.short = self._shortlist()
        return self._best_of(self.short) or self._best_of_all()

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
            squared = _least_squared(short.points[index], self.shelf[start : self.count])
            short.exact[index] = torch.minimum(short.exact[index], squared)
            short.seen[contenders] = self.count
        result: NDArray[np.float32] = short.exact[index].float().numpy()
        return result

    def _best_of_all(self) -> tuple[int, float]:
        """The farthest row where near-ties reach beyond the shortlist: as exact, slower, in no more memory."""
        slack = self._slack(self.norms, self.least)
        bar = (self.least - slack).max()
        contenders = torch.nonzero(self.least + slack >= bar).flatten().numpy()
        squared = np.empty(len(contenders), dtype=np.float32)
        for rows in blocks(len(contenders), 16 * self.points.shape[1]):
            some = as_tensor(self.points[contenders[rows]])
            squared[rows] = _least_squared(some, self.shelf[: self.count]).float().numpy()
        best = int(squared.argmax())
        return int(contenders[best]), float(squared[best]) ** 0.5

    def _refresh(self) -> None:
        """Bring every row's least squared distance up to date with the centres added since the last time."""
        n, d = self.points.shape
        for some in blocks(self.count - self.pending, 16 * d):
            new = self.shelf[self.pending + some.start : self.pending + some.stop]
            lengths = new.square().sum(dim=1)
            for rows in blocks(n, 8 * d + 4 * len(new)):
                product = torch.addmm(lengths, as_tensor(self.points[rows]), new.T, alpha=-2)
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
        return _Shortlist(
            rows=rows,
            points=as_tensor(self.points[rows]),
            norms=self.norms[index],
            least=self.least[index],
            outside=outside,
            exact=torch.full((len(rows),), torch.inf, dtype=torch.float64),
            seen=np.zeros(len(rows), dtype=np.int64),
        )


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

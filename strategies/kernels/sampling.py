"""Drawing with chances that depend on what was drawn before, and with chances that are known."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.nearness import Factors, Nearness
from strategies.kernels.projection import as_tensor

_TRIES = 64
"""Proposals looked at together."""
_PATIENCE = 256
"""Refusals that are borne in a pool however small before all distances are computed anew."""


def d2_sampling(
    points: NDArray[Any], centres: NDArray[Any], picks: int, seed: int, factors: Factors | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw rows one by one, each with a chance in proportion to its squared distance to everything drawn before.

    points (n, d), centres (m, d), picks ≤ n → rows in the order drawn and their squared distances when drawn. Without
    centres the first is uniform, and its distance 0. With `factors`, as in `Nearness`, it is the longest, with its
    squared length, and centres have to be empty. Where only doubles of centres are left, they follow by row.

    By rejection: distances only fall, so a row proposed by its old distance and kept with the chance new / old is
    drawn exactly by the new ones. All rows are computed anew after n / 16 refusals. Typically three passes over the
    points, instead of one a pick. Arthur & Vassilvitskii, *k-means++*, SODA 2007.
    """
    generator = np.random.Generator(np.random.PCG64(seed % 2**64))
    nearness = Nearness(points, centres, picks, factors)
    n = len(points)
    drawn: list[int] = []
    squared: list[float] = []
    if picks and not len(centres):
        drawn.append(int(generator.random() * n) if factors is None else int(nearness.norms.argmax()))
        squared.append(0.0 if factors is None else float(nearness.norms[drawn[0]]))
        nearness.add(drawn[0])
    refused, patience = 0, max(_PATIENCE, n // 16)
    bounds: NDArray[Any] = np.empty(0)
    total: NDArray[Any] = np.empty(0)
    queue: NDArray[Any] = np.empty(0, dtype=np.int64)
    coins: NDArray[Any] = np.empty(0)
    while len(drawn) < picks:
        if not len(total) or refused > patience:
            nearness.refresh()
            bounds = nearness.least.double().numpy()
            total, refused = np.cumsum(bounds), 0
            queue = queue[:0]
            if total[-1] <= 0:
                rest = np.setdiff1d(np.arange(n), drawn)[: picks - len(drawn)]
                drawn += rest.tolist()
                squared += [0.0] * len(rest)
                break
        if not len(queue):
            queue = np.searchsorted(total, generator.random(_TRIES) * total[-1], side="right").clip(max=n - 1)
            coins = generator.random(_TRIES)
        least = nearness.update(queue)
        kept = np.flatnonzero(coins * bounds[queue] < least)
        passed = int(kept[0]) if len(kept) else len(queue)
        if len(kept):
            drawn.append(int(queue[passed]))
            squared.append(float(least[passed]))
            nearness.add(drawn[-1])
        refused += passed
        queue, coins = queue[passed + 1 :], coins[passed + 1 :]
    return np.array(drawn, dtype=np.int64), np.array(squared, dtype=np.float64)


def squared_from_mean(points: NDArray[Any]) -> NDArray[np.float64]:
    """Squared distance of each row (n, d) from the mean of all, (n,). Two passes."""
    n, d = points.shape
    total = np.zeros(d)
    for rows in blocks(n, 16 * d):
        total += points[rows].sum(axis=0, dtype=np.float64)
    mean = torch.from_numpy((total / n).astype(np.float32))
    squared = np.empty(n)
    for rows in blocks(n, 8 * d):
        squared[rows] = as_tensor(points[rows]).sub_(mean).square_().sum(dim=1).numpy()
    return squared


def inclusion(sizes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Chances (n,) in proportion to `sizes`, 1 at most, that sum to `count` ≤ n; positive sizes."""
    chances = np.ones(len(sizes))
    certain = np.zeros(len(sizes), dtype=bool)
    while not certain.all():
        left = ~certain
        chances[left] = sizes[left] * ((count - certain.sum()) / sizes[left].sum())
        beyond = left & (chances >= 1)
        if not beyond.any():
            break
        chances[beyond] = 1
        certain |= beyond
    return chances


def systematic(chances: NDArray[np.float64], order: NDArray[np.int64], start: float) -> NDArray[np.int64]:
    """Rows, each drawn with exactly its chance and as many as the chances' sum; `start` is uniform in [0, 1).

    Walk through the rows in a random `order` and take one at every whole step of the summed chances: Madow, 1949.
    """
    reached = np.cumsum(chances[order])
    count = round(float(reached[-1]))
    steps = np.searchsorted(reached, np.arange(count) + start, side="right").clip(max=len(order) - 1)
    rows: NDArray[np.int64] = order[steps]
    return rows

"""k-means, and how typical a point is among its cluster."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks

MOST_CLUSTERED = 20_000
"""Rows that go into k-means, unless a batch itself is larger: beyond, clustering would take minutes."""


def kmeans(
    points: torch.Tensor, clusters: int, seed: int, iterations: int = 20, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from k-means++ seeds. Arthur & Vassilvitskii, SODA 2007.

    points (n, d) float32, weights (n,) float32 above zero → cluster of each point, (n,) int64, and centres,
    (clusters, d); clusters ≤ n. A cluster that runs empty moves to the point farthest from its own centre.
    """
    centres = points[_plus_plus(points, clusters, seed, weights)].clone()
    assignment, distance = nearest(points, centres)
    heavy = points if weights is None else points * weights[:, None]
    for _ in range(iterations):
        counts = torch.bincount(assignment, minlength=clusters)
        mass = counts if weights is None else torch.zeros(clusters).index_add_(0, assignment, weights)
        sums = torch.zeros_like(centres).index_add_(0, assignment, heavy)
        centres = torch.where(counts[:, None] > 0, sums / mass.clamp_min(1e-30)[:, None], centres)
        empty = torch.nonzero(counts == 0).flatten()
        if len(empty):
            far = torch.sort(distance, descending=True, stable=True).indices[: len(empty)]
            centres[empty] = points[far]
        previous = assignment
        assignment, distance = nearest(points, centres)
        if torch.equal(previous, assignment):
            break
    return assignment, centres


def representatives(
    points: torch.Tensor, count: int, clusters: int, seed: int, weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`count` ≤ n rows of (n, d) that stand for the rest, and the weight of the cluster that each stands for.

    k-means to `count` clusters, `clusters` at most. The heaviest cluster gives the row nearest its centre, then the
    next; where there are fewer clusters than `count`, their second nearest follow, and so on. Without weights (n,),
    above zero, each row weighs one.
    """
    heavy = None if weights is None else torch.from_numpy(weights)
    group, centres = kmeans(points, min(count, clusters), seed, weights=heavy)
    apart = (points - centres[group]).square().sum(dim=1).numpy()
    owner = group.numpy()
    mass = np.bincount(owner, weights, minlength=len(centres)).astype(np.float64)
    rows = in_turn(owner, apart, mass)[:count]
    return rows, mass[owner[rows]]


def in_turn(group: NDArray[np.int64], apart: NDArray[np.floating[Any]], mass: NDArray[np.float64]) -> NDArray[np.int64]:
    """The row of least `apart` (n,) of every group, the group of largest mass first, then all second rows, and on."""
    inward = np.lexsort((apart, group))
    turn = np.empty(len(group), dtype=np.int64)
    turn[inward] = np.arange(len(group)) - np.searchsorted(group[inward], group[inward])
    rows: NDArray[np.int64] = np.lexsort((group, -mass[group], turn))
    return rows


def nearest(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest centre of each point, (n,) int64 (the lower one of a tie), and the squared distance to it, (n,)."""
    norms = centres.square().sum(dim=1)
    assignment = torch.empty(len(points), dtype=torch.int64)
    distance = torch.empty(len(points), dtype=torch.float32)
    for rows in blocks(len(points), 8 * len(centres)):
        block = points[rows]
        least, index = torch.addmm(norms, block, centres.T, alpha=-2).min(dim=1)
        assignment[rows] = index
        distance[rows] = (least + block.square().sum(dim=1)).clamp_min_(0)
    return assignment, distance


def _plus_plus(points: torch.Tensor, clusters: int, seed: int, weights: torch.Tensor | None) -> torch.Tensor:
    """Rows drawn one by one with a chance in proportion to weight times squared distance from those drawn before."""
    draws = np.random.Generator(np.random.PCG64(seed % 2**64)).random(clusters)
    norms = points.square().sum(dim=1)
    rows = [int(draws[0] * len(points))]
    if weights is not None:
        mass = weights.double().cumsum(dim=0)
        rows = [int(torch.searchsorted(mass, draws[0] * mass[-1], right=True).clamp_max(len(points) - 1))]
    distance = torch.full((len(points),), torch.inf)
    for draw in draws[1:]:
        to_last = norms + norms[rows[-1]] - 2 * (points @ points[rows[-1]])
        torch.minimum(distance, to_last.clamp_min_(0), out=distance)
        distance[rows[-1]] = 0
        total = (distance if weights is None else distance * weights).double().cumsum(dim=0)
        if total[-1] <= 0:  # only duplicates of the drawn are left
            rows += np.setdiff1d(np.arange(len(points)), rows)[: clusters - len(rows)].tolist()
            break
        rows.append(int(torch.searchsorted(total, draw * total[-1], right=True).clamp_max(len(points) - 1)))
    return torch.tensor(rows)


def typicality(points: torch.Tensor, neighbours: int) -> NDArray[np.float64]:
    """1 / (mean distance to the `neighbours` nearest others) of each point of a cluster (m, d), as (m,) float64.

    0 for a lone point; duplicates are capped at 1e6. Costs m² d in float64: call it on a cluster, not on a pool.
    """
    m = len(points)
    near = min(neighbours, m - 1)
    if near < 1:
        return np.zeros(m)
    exact = points.double()
    norms = exact.square().sum(dim=1)
    mean = torch.empty(m, dtype=torch.float64)
    for rows in blocks(m, 16 * m):
        squared = torch.addmm(norms, exact[rows], exact.T, alpha=-2).add_(norms[rows, None])
        squared[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = torch.inf
        closest = squared.topk(near, dim=1, largest=False).values
        # below 1e-12 of the norms it is rounding, not distance
        closest = torch.where(closest < 1e-12 * norms[rows, None].clamp_min(1e-30), 0.0, closest)
        mean[rows] = closest.sqrt_().mean(dim=1)
    # rounded to float32, so that equal points tie whatever the block they were in
    result: NDArray[np.float64] = (1 / mean.clamp_min(1e-6)).float().double().numpy()
    return result


def smallest_distance(points: torch.Tensor) -> float:
    """The smallest distance above zero between two of (m, d), infinity where there is none. Costs m² d."""
    exact = points.double()
    norms = exact.square().sum(dim=1)
    least = np.inf
    for rows in blocks(len(exact), 16 * len(exact)):
        squared = torch.addmm(norms, exact[rows], exact.T, alpha=-2).add_(norms[rows, None])
        apart = squared[squared > 1e-10 * norms.max().clamp_min(1e-30)]
        least = min(least, float(apart.min()) if len(apart) else np.inf)
    return float(np.sqrt(least))

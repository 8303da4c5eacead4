"""Who is most like whom: between a pool and some thousand other points, in one pass over the pool."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.kernels.projection import Projection, as_tensor
from strategies.kernels.sampling import d2_sampling


def most_like(
    points: NDArray[Any], project: Projection, queries: torch.Tensor, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` rows of (n, d) with the highest cosine to each query, projected (q, k) unit vectors already.

    → rows (q, c) and cosines (q, c), the highest first, c = min(count, n). Costs n k q, and holds q × count numbers.
    """
    n, d = points.shape
    width = min(count, n)
    best = torch.full((len(queries), 0), -torch.inf)
    rows_of = torch.empty((len(queries), 0), dtype=torch.int64)
    for rows in blocks(n, 8 * d + 16 * len(queries)):
        cosine = queries @ project(points[rows]).T
        index = torch.arange(rows.start, rows.stop).expand(len(queries), -1)
        if cosine.shape[1] > width:
            cosine, near = cosine.topk(width, dim=1)
            index = near + rows.start
        joined = torch.cat([best, cosine], dim=1)
        best, order = torch.sort(joined, dim=1, descending=True, stable=True)
        best = best[:, :width]
        rows_of = torch.cat([rows_of, index], dim=1).gather(1, order[:, :width])
    return rows_of.numpy(), best.numpy()


def contrast(
    points: NDArray[Any],
    probabilities: NDArray[Any],
    labelled: NDArray[Any],
    labelled_probabilities: NDArray[np.float64],
    neighbours: int,
) -> NDArray[np.float32]:
    """Mean Kullback-Leibler divergence in nats from what the `neighbours` nearest labelled rows (l, d) are predicted,
    (l, K), to what each row (n, d) is, (n, K): (n,) float32. Costs n d l."""
    n, d = points.shape
    others = as_tensor(labelled)
    norms = others.square().sum(dim=1)
    near = min(neighbours, len(labelled))
    surprise = (labelled_probabilities * _log(labelled_probabilities)).sum(axis=1)
    result = np.empty(n, dtype=np.float32)
    for rows in blocks(n, 8 * d + 12 * len(labelled) + 8 * near * probabilities.shape[1]):
        apart = torch.addmm(norms, as_tensor(points[rows]), others.T, alpha=-2)
        index = apart.topk(near, dim=1, largest=False).indices.numpy()
        mean = labelled_probabilities[index].mean(axis=1)
        cross = (mean * _log(np.asarray(probabilities[rows], dtype=np.float64))).sum(axis=1)
        result[rows] = surprise[index].mean(axis=1) - cross
    return result


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm, of 1e-12 where it would be infinite."""
    logarithm: NDArray[np.float64] = np.log(np.maximum(probabilities, 1e-12))
    return logarithm


def anchors(points: NDArray[Any], classes: NDArray[np.integer[Any]], count: int, seed: int) -> NDArray[np.int64]:
    """Rows of (l, d): `count` of each class, or all it has, spread by the seeding of k-means++."""
    rows: list[NDArray[Any]] = [np.empty(0, dtype=np.int64)]
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        nothing = np.empty((0, points.shape[1]), dtype=np.float32)
        rows.append(members[d2_sampling(points[members], nothing, min(count, len(members)), seed)[0]])
    return np.sort(np.concatenate(rows))

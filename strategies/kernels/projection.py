"""PCA onto the unit sphere, where cosine and distance mean the same, and near-duplicates on that sphere."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A float32 tensor of its own memory (the array may be read-only, float16, or a memory map)."""
    return torch.from_numpy(np.array(array, order="C")).float()  # numpy takes twice as long to widen halves


@dataclass(frozen=True, eq=False)
class Projection:
    """Centre on `mean` (d,), rotate onto `axes` (d, k) if there are fewer than d, scale each row to length one."""

    mean: torch.Tensor
    axes: torch.Tensor | None

    def __call__(self, embeddings: NDArray[Any]) -> torch.Tensor:
        """(n, d) to (n, k) float32 with rows of length one, or zero where a row is the mean itself."""
        n, d = embeddings.shape
        width = d if self.axes is None else self.axes.shape[1]
        projected = torch.zeros((n, width), dtype=torch.float32)
        for rows in blocks(n, 8 * d):
            block = as_tensor(embeddings[rows]).sub_(self.mean)
            if self.axes is not None:
                block = block @ self.axes
            length = block.norm(dim=1, keepdim=True)
            projected[rows] = torch.where(length > 0, block / length.clamp_min(1e-30), 0.0)
        return projected


def fit_projection(sample: NDArray[Any], dimensions: int) -> Projection:
    """Principal axes of (m, d) embeddings, m about ten thousand; covariance d × d in float32, solved in float64."""
    m, d = sample.shape
    total = np.zeros(d)
    for rows in blocks(m, 12 * d):
        total += np.asarray(sample[rows], dtype=np.float64).sum(axis=0)
    mean = torch.from_numpy((total / max(1, m)).astype(np.float32))
    if d <= dimensions:
        return Projection(mean, None)
    covariance = torch.zeros((d, d), dtype=torch.float32)
    for rows in blocks(m, 8 * d):
        block = as_tensor(sample[rows]).sub_(mean)
        covariance.addmm_(block.T, block)
    _, axes = scipy.linalg.eigh(covariance.double().numpy(), subset_by_index=(d - dimensions, d - 1))
    return Projection(mean, torch.from_numpy(axes.astype(np.float32)))


def nearest_cosine(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The highest cosine of each unit vector (n, k) to the others (l, k), (n,) float32; -∞ without others."""
    best = torch.full((len(points),), -torch.inf)
    for part in blocks(len(others), 4 * max(1024, others.shape[1])):
        for rows in blocks(len(points), 4 * (part.stop - part.start)):
            best[rows] = torch.maximum(best[rows], (points[rows] @ others[part].T).amax(dim=1))
    return best


def distinct(points: torch.Tensor, cosine: float, count: int) -> NDArray[np.int64]:
    """The first `count` rows of unit vectors (n, k), in order, with a cosine below `cosine` to each row kept before."""
    kept: list[int] = []
    shelf = torch.empty((min(count, len(points)), points.shape[1]))
    for rows in blocks(len(points), 4 * max(1024, len(shelf))):
        block = points[rows]
        alive = np.ones(len(block), dtype=bool)
        if kept:
            alive = ((block @ shelf[: len(kept)].T).amax(dim=1) < cosine).numpy()
        for row in range(len(block)):
            if not alive[row]:
                continue
            shelf[len(kept)] = block[row]
            kept.append(rows.start + row)
            if len(kept) == len(shelf):
                return np.array(kept, dtype=np.int64)
            alive &= ~((block @ block[row]) >= cosine).numpy()
    return np.array(kept, dtype=np.int64)

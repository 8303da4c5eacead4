"""A request's embeddings as unit vectors of a few principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.contract import Request
from strategies.randomness import sample

if TYPE_CHECKING:
    import torch

_FIT_ROWS = 10_000
"""Rows that the principal axes are fitted on; a thousand dimensions are well determined by them."""


@dataclass(frozen=True, eq=False)
class Sphere:
    """Embeddings (·, d) to float32 unit vectors (·, k), computed when asked for."""

    embeddings: NDArray[Any]
    labelled_embeddings: NDArray[Any]
    project: kernels.Projection

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The unit vectors of these candidates."""
        return self.project(self.embeddings[rows])

    def with_labelled(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The unit vectors of these candidates and, below them, of the labelled items."""
        return self.project(np.concatenate([self.embeddings[rows], self.labelled_embeddings]))

    def labelled(self) -> torch.Tensor:
        """The unit vectors of the labelled items, (l, k)."""
        return self.project(self.labelled_embeddings)


def sphere(request: Request, dimensions: int) -> Sphere:
    """Fit the axes on a uniform sample of the candidates and the labelled items together, so that they barely move
    from round to round."""
    assert request.embeddings is not None
    labelled = request.labelled_embeddings
    if labelled is None:
        labelled = np.empty((0, request.embeddings.shape[1]), dtype=request.embeddings.dtype)
    rows = sample(request.ids, request.seed + 2, _FIT_ROWS)
    fitted_on = np.concatenate([request.embeddings[rows], labelled[:_FIT_ROWS]], dtype=np.float32)
    return Sphere(request.embeddings, labelled, kernels.fit_projection(fitted_on, dimensions))

"""Embeddings in two dimensions: the two directions in which a pool varies most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MORE = 8  # directions beside the two that are sought
_TURNS = 6


@dataclass(frozen=True, eq=False)
class Axes:
    """Where a map's centre lies, (d,) float32, and its two directions, (d, 2) float32 and orthonormal."""

    centre: NDArray[np.float32]
    directions: NDArray[np.float32]

    def place(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """Coordinates (n, 2) float32 of embeddings (n, d). O(n · d)."""
        flat = (np.asarray(embeddings, np.float32) - self.centre) @ self.directions
        return flat.astype(np.float32, copy=False)


def principal_axes(embeddings: NDArray[Any], seed: int = 0) -> Axes:
    """The first two principal axes of embeddings (n, d), by randomised subspace iteration: O(n · d).

    Each points to where its largest weight is positive, so that equal pools give equal maps.

    Halko, Martinsson & Tropp, *Finding structure with randomness*, SIAM Review 2011.
    """
    rows = np.asarray(embeddings, np.float32)
    centre = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1], np.float32)
    centred = rows - centre
    width = min(rows.shape[1], 2 + _MORE)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(rows.shape[1], width)))[0].astype(np.float32)
    for _ in range(_TURNS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    _, _, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    directions = np.zeros((rows.shape[1], 2), np.float32)
    found = (basis @ turned.T)[:, :2]
    directions[:, : found.shape[1]] = found
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(2)])
    return Axes(centre, directions * np.where(signs == 0, 1, signs).astype(np.float32))

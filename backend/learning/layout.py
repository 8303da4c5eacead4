"""Embeddings in two dimensions: the two directions in which a pool varies most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MORE = 8  # directions beside the two that are sought
_TURNS = 6
_AT_ONCE = 128  # items whose distances are in memory: 100 MB beside 100,000 known ones


@dataclass(frozen=True, eq=False)
class Axes:
    """Where a map's centre lies, (d,) float32, and its directions, (d, k) float32 and orthonormal; two by default."""

    centre: NDArray[np.float32]
    directions: NDArray[np.float32]

    def place(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """Coordinates (n, k) float32 of embeddings (n, d). O(n · d · k)."""
        flat = (np.asarray(embeddings, np.float32) - self.centre) @ self.directions
        return flat.astype(np.float32, copy=False)


def principal_axes(embeddings: NDArray[Any], seed: int = 0, count: int = 2) -> Axes:
    """The first principal axes of embeddings (n, d), by randomised subspace iteration: O(n · d · count).

    Each points to where its largest weight is positive, so that equal pools give equal maps.

    Halko, Martinsson & Tropp, *Finding structure with randomness*, SIAM Review 2011.
    """
    rows = np.asarray(embeddings, np.float32)
    centre = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1], np.float32)
    centred = rows - centre
    width = min(rows.shape[1], count + _MORE)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(rows.shape[1], width)))[0].astype(np.float32)
    for _ in range(_TURNS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    _, _, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    directions = np.zeros((rows.shape[1], count), np.float32)
    found = (basis @ turned.T)[:, :count]
    directions[:, : found.shape[1]] = found
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(count)])
    return Axes(centre, directions * np.where(signs == 0, 1, signs).astype(np.float32))


def beside(
    known: NDArray[np.float32], places: NDArray[np.float32], rows: NDArray[np.float32], neighbours: int = 5
) -> NDArray[np.float32]:
    """Places (n, 2) of rows (n, k): each at the mean of the `places` (m, 2) of its nearest `known` ones (m, k).

    O(n · m · k).
    """
    count = min(neighbours, len(known))
    lengths = (known**2).sum(axis=1) / 2
    found = [np.empty((0, 2), np.float32)]
    for at in range(0, len(rows), _AT_ONCE):
        far = lengths - rows[at : at + _AT_ONCE] @ known.T
        nearest = np.argpartition(far, count - 1, axis=1)[:, :count]
        found.append(places[nearest].mean(axis=1, dtype=np.float32))
    return np.concatenate(found)

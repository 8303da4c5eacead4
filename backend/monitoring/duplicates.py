"""Items of the holdout that were, in other bytes, trained on too."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COSINE = 0.98
_FEWEST_ROWS = 30  # below, the mean is no centre of anything
_BLOCK_BYTES = 64 * 2**20


def near_duplicates(train: NDArray[Any], holdout: NDArray[Any], cosine: float = COSINE) -> list[tuple[int, int, float]]:
    """(holdout row, its nearest training row, their cosine) where the cosine is at least `cosine`, in row order.

    train: (n, d), holdout: (m, d), float16 or float32. Both are centred on the training rows' mean first: a network's
    embeddings lie in a narrow cone, where everything resembles everything. Nothing below 30 training rows. Exact;
    O(n m d), 64 MiB at a time: 0.2 s for 5,000 × 500 × 1,280 on two cores.
    """
    if len(train) < _FEWEST_ROWS or not len(holdout):
        return []
    known = np.asarray(train).astype(np.float32)
    mean = known.mean(axis=0)
    known = _unit(known, mean)
    found: list[tuple[int, int, float]] = []
    block = max(1, _BLOCK_BYTES // (4 * len(train)))
    for start in range(0, len(holdout), block):
        similarity = _unit(np.asarray(holdout[start : start + block]).astype(np.float32), mean) @ known.T
        nearest = similarity.argmax(axis=1)
        best = similarity[np.arange(len(nearest)), nearest]
        found += [(start + int(row), int(nearest[row]), float(best[row])) for row in np.flatnonzero(best >= cosine)]
    return found


def _unit(rows: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred rows of length 1, in place; a row that is not finite becomes 0 and resembles nothing."""
    rows -= mean
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows *= np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 1e-12)[:, None]
    rows[~np.isfinite(norms)] = 0.0
    return rows

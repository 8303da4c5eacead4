"""Predicting a pool: a head's matrix product over the stored vectors, in chunks."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.scoring.vectors import VectorStore

Predict = Callable[[NDArray[np.float32]], NDArray[np.floating]]


def predict_rows(
    head_predict: Predict, store: VectorStore, hashes: Sequence[str], chunk: int = 8192
) -> NDArray[np.float32]:
    """Predictions (n, K) float32 of the items with these content hashes, in their order.

    `head_predict` maps float32 (m, dims) to (m, K) and is called with m ≤ `chunk`, in the order of the file,
    so that memory stays at one chunk and the disk is read forward. Raises VectorsMissing.
    """
    rows = store.locate(hashes)
    order = np.argsort(rows, kind="stable")
    out: NDArray[np.float32] | None = None
    for start in range(0, max(len(rows), 1), chunk):
        here = order[start : start + chunk]
        if len(rows) and rows[here[0]] < 0:
            store.gather(hashes)  # raises, naming a hash
        predicted = head_predict(store.gather(rows[here]).astype(np.float32))
        if out is None:
            out = np.empty((len(rows), predicted.shape[1]), np.float32)
        out[here] = predicted
    assert out is not None
    return out

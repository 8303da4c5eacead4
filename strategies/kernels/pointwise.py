"""One number a row, from class probabilities (n, K)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks


def top2(probabilities: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The largest and second largest of each row, (n,) float32 each; the second is 0 where there is one class."""
    n, classes = probabilities.shape
    first, second = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 4 * classes):
        block = np.asarray(probabilities[rows], dtype=np.float32)
        if classes > 1:
            block = np.partition(block, classes - 2, axis=1)
            second[rows] = block[:, -2]
        first[rows] = block[:, -1]
    return first, second


def entropy(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """-Σ p log p of each row, (n,) float32 in nats, with 0 log 0 = 0."""
    n, classes = probabilities.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 12 * classes):
        block = np.array(probabilities[rows], dtype=np.float32)
        logarithm = np.zeros_like(block)
        np.log(block, out=logarithm, where=block > 0)
        np.multiply(block, logarithm, out=block)
        result[rows] = -block.sum(axis=1)
    return result + np.float32(0)  # -0.0 becomes 0.0

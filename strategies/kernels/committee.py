"""One number a row, from the probabilities (T, n, K) of T plausible heads. In blocks that stay in the cache."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import CACHE_BYTES, blocks
from strategies.kernels.pointwise import plogp


def consensus_entropy(samples: NDArray[Any]) -> NDArray[np.float32]:
    """H(p̄), the entropy in nats of the heads' mean."""
    result = np.zeros(samples.shape[1], dtype=np.float32)
    for rows, block in _blocks(samples):
        result[rows] = -plogp(_mean(block)).sum(axis=1)
    return result.clip(min=0)


def information(samples: NDArray[Any]) -> NDArray[np.float32]:
    """H(p̄) - mean over t of H(p_t), in nats: what the label would tell about which head is right. (n,) float32."""
    result = np.zeros(samples.shape[1], dtype=np.float32)
    for rows, block in _blocks(samples):
        own = np.zeros(block.shape[1:], dtype=np.float32)
        for head in block:
            own += plogp(np.asarray(head, dtype=np.float32))
        own /= len(block)
        own -= plogp(_mean(block))
        result[rows] = own.sum(axis=1)
    return result.clip(min=0)


def largest_divergence(samples: NDArray[Any]) -> NDArray[np.float32]:
    """The largest over t of KL(p_t ‖ p̄), in nats, (n,) float32."""
    result = np.zeros(samples.shape[1], dtype=np.float32)
    for rows, block in _blocks(samples):
        consensus = np.log(np.maximum(_mean(block), np.finfo(np.float32).tiny))
        for head in block:
            own = np.asarray(head, dtype=np.float32)
            result[rows] = np.maximum(result[rows], (plogp(own) - own * consensus).sum(axis=1))
    return result


def deviation(samples: NDArray[Any]) -> NDArray[np.float32]:
    """The mean over classes of the standard deviation over heads, (n,) float32."""
    result = np.zeros(samples.shape[1], dtype=np.float32)
    for rows, block in _blocks(samples):
        mean = _mean(block)
        square = np.zeros_like(mean)
        for head in block:
            square += np.square(head - mean)
        result[rows] = np.sqrt(square / len(block)).mean(axis=1)
    return result


def votes(samples: NDArray[Any]) -> NDArray[np.int32]:
    """(n, K) int32, how many heads hold each class for the most probable one (the lower of equals)."""
    _, n, classes = samples.shape
    result = np.zeros((n, classes), dtype=np.int32)
    for rows, block in _blocks(samples):
        offsets = np.arange(block.shape[1]) * classes
        best = block.argmax(axis=2) + offsets
        counts = np.bincount(best.ravel(), minlength=block.shape[1] * classes)
        result[rows] = counts.reshape(-1, classes)
    return result


def _blocks(samples: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    _, n, classes = samples.shape
    for rows in blocks(n, 12 * classes, CACHE_BYTES):
        yield rows, samples[:, rows]


def _mean(block: NDArray[Any]) -> NDArray[np.float32]:
    """(T, m, K) to (m, K), head by head: the order of the sum does not hang on the block."""
    total = np.zeros(block.shape[1:], dtype=np.float32)
    for head in block:
        total += head
    total /= len(block)
    return total

"""One number a row, from embeddings (n, d) and a linear head. Sums are float64, rounded to float32 at the end, so that
equal rows tie in whatever block they are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import CACHE_BYTES, blocks


def lengths(embeddings: NDArray[Any]) -> NDArray[np.float32]:
    """The Euclidean length of each row, (n,) float32."""
    n, d = embeddings.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 16 * d, CACHE_BYTES):
        block = np.asarray(embeddings[rows], dtype=np.float64)
        result[rows] = np.sqrt(np.einsum("nd,nd->n", block, block))
    return result


def expected_residual(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """Σ_k p_k ‖p - e_k‖ of each row (n, K), by ‖p - e_k‖² = ‖p‖² - 2 p_k + 1. (n,) float32, in [0, 1]."""
    n, classes = probabilities.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 24 * classes, CACHE_BYTES):
        block = np.asarray(probabilities[rows], dtype=np.float64)
        squared = np.square(block).sum(axis=1, keepdims=True) - 2 * block + 1
        result[rows] = (block * np.sqrt(squared.clip(min=0))).sum(axis=1)
    return result


def boundary_distance(embeddings: NDArray[Any], weights: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float32]:
    """How far each row (n, d) is from where the head of weights (d, K) and bias (K,) predicts another class, (n,).

    The least over k of (z_top - z_k) / ‖w_top - w_k‖. The largest float32 where there is no other class to reach.
    """
    (n, d), classes = embeddings.shape, weights.shape[1]
    columns, offset = np.asarray(weights, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    apart = np.stack([np.linalg.norm(columns - columns[:, [k]], axis=0) for k in range(classes)])
    most = np.finfo(np.float32).max
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 8 * d + 24 * classes):
        logits = np.asarray(embeddings[rows], dtype=np.float64) @ columns + offset
        top = logits.argmax(axis=1)
        gap = logits.max(axis=1, keepdims=True) - logits
        distance = np.full_like(gap, most)
        np.divide(gap, apart[top], out=distance, where=apart[top] > 0)
        distance[(apart[top] == 0) & (gap == 0)] = 0  # two classes that are one
        distance[np.arange(len(top)), top] = most
        result[rows] = distance.min(axis=1).clip(max=most)
    return result


def mean_cosine(embeddings: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float32]:
    """The mean cosine of each row (n, d) to the targets (t, d), (n,) float32; 0 for a row of zeros. One product a row,
    as the mean of the cosines is the cosine's numerator with the mean of the targets."""
    n, d = embeddings.shape
    total = np.zeros(d)
    for rows in blocks(len(targets), 24 * d):
        total += _unit(targets[rows]).sum(axis=0)
    mean = total / max(1, len(targets))
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 24 * d, CACHE_BYTES):
        result[rows] = np.einsum("nd,d->n", _unit(embeddings[rows]), mean)
    return result


def _unit(block: NDArray[Any]) -> NDArray[np.float64]:
    rows = np.asarray(block, dtype=np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    unit: NDArray[np.float64] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit

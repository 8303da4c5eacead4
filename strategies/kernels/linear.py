"""What a linear head says of embeddings: with all features, and with some left out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import blocks
from strategies.randomness import keys, splitmix64


def head_probabilities(
    embeddings: NDArray[Any], weights: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Softmax of ``embeddings @ weights + bias``, (m, K) float64, of some rows (m, d)."""
    logits = np.asarray(embeddings, dtype=np.float64) @ weights + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return result


def dropped_disagreement(
    embeddings: NDArray[Any],
    ids: NDArray[Any],
    weights: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]],
    rate: float,
    passes: int,
    seed: int,
) -> NDArray[np.int64]:
    """In how many of `passes` a row (n, d) gets another class once each feature is left out with chance `rate`.

    (n,) int64. What is left is scaled by 1 / (1 - rate); a feature's fate belongs to (seed, id, pass, feature). The
    chance comes in steps of 1/256.
    """
    n, d = embeddings.shape
    kept = round(256 * (1 - rate))
    words = np.arange(1, (d + 7) // 8 + 1, dtype=np.uint64)
    result = np.zeros(n, dtype=np.int64)
    for rows in blocks(n, 16 * d):
        points = np.asarray(embeddings[rows], dtype=np.float32)
        whole = (points @ weights + bias).argmax(axis=1)
        for turn in range(passes):
            stream = keys(ids[rows], seed + turn)[:, None] ^ splitmix64(words)[None, :]
            fate = splitmix64(stream).astype("<u8", copy=False).view(np.uint8)[:, :d]
            part = np.where(fate < kept, points, np.float32(0)) @ (weights * (256 / kept)) + bias
            result[rows] += part.argmax(axis=1) != whole
    return result

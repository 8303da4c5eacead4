"""One number a row, from class probabilities (n, K)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import CACHE_BYTES, blocks

_TINY = np.finfo(np.float32).tiny


def top2(probabilities: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The largest and second largest of each row, (n,) float32 each; the second is 0 where there is one class."""
    n, classes = probabilities.shape
    first, second = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 12 * classes, CACHE_BYTES):
        columns = np.array(probabilities[rows].T, dtype=np.float32, order="C")
        best, after = columns[0], np.full(columns.shape[1], -np.inf if classes > 1 else 0, dtype=np.float32)
        for column in columns[1:]:  # by columns, as sorting or partitioning each row takes twice as long and more
            np.maximum(after, np.minimum(best, column), out=after)
            np.maximum(best, column, out=best)
        first[rows], second[rows] = best, after
    return first, second


def gap(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """The largest less the second largest of each row, (n,) float32."""
    first, second = top2(probabilities)
    return first - second


def over_labels(
    probabilities: NDArray[Any], measure: Callable[[NDArray[Any]], NDArray[np.float32]], over: str
) -> NDArray[np.float32]:
    """The mean, or with `over` "max" the highest, of a measure over each row's K labels, (n,) float32.

    probabilities: (n, K), each of a label by itself; `measure` makes (r,) of distributions (r, 2), of no and yes.
    """
    n, labels = probabilities.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n if labels else 0, 20 * labels, CACHE_BYTES):
        yes = np.asarray(probabilities[rows], dtype=np.float32).reshape(-1)
        found = measure(np.stack([1 - yes, yes], axis=1)).reshape(-1, labels)
        result[rows] = found.mean(axis=1) if over == "mean" else found.max(axis=1)
    return result


def entropy(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """-Σ p log p of each row, (n,) float32 in nats, with 0 log 0 = 0."""
    n, classes = probabilities.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 12 * classes, CACHE_BYTES):
        result[rows] = -plogp(np.asarray(probabilities[rows], dtype=np.float32)).sum(axis=1)
    return result + np.float32(0)  # -0.0 becomes 0.0


def plogp(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """p log p of every element, 0 for 0. Without a mask: that is four times slower."""
    result = np.maximum(block, _TINY)
    np.log(result, out=result)
    result *= block
    return result


def gini(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """1 - Σ p² of each row, (n,) float32."""
    n, classes = probabilities.shape
    result = np.zeros(n, dtype=np.float32)
    for rows in blocks(n, 8 * classes, CACHE_BYTES):
        block = np.asarray(probabilities[rows], dtype=np.float32)
        result[rows] = 1 - np.square(block).sum(axis=1)
    return result.clip(min=0)


def residuals(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """p - e of each row (n, K), where e marks the most probable class (the lower of equals): (n, K) float32."""
    result = np.array(probabilities, dtype=np.float32)
    result[np.arange(len(result)), result.argmax(axis=1)] -= 1
    return result


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """The place of each value among all (n,), from 1/n for the lowest to 1; equals share the mean of their places."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    places: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place] / max(1, len(values))
    return places


def tempered(probabilities: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """The softmax of log p / temperature, (n, K) float32: the same as dividing the logits. A zero stays a zero."""
    if temperature == 1:
        return np.asarray(probabilities, dtype=np.float32)
    result = np.array(probabilities, dtype=np.float64)
    result /= np.maximum(result.max(axis=1, keepdims=True), 1e-300)
    result **= 1 / temperature
    result /= np.maximum(result.sum(axis=1, keepdims=True), 1e-300)
    return result.astype(np.float32)


def turns(groups: NDArray[Any]) -> NDArray[np.int64]:
    """How many of the same group stand before each place of a sequence (n,): 0 for the first of a group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    turn = np.empty(len(groups), dtype=np.int64)
    turn[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return turn

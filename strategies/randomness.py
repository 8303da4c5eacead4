"""Randomness keyed by (seed, item id): who is in the pool, and in which order, does not change an item's number."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROWS = 1 << 16


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words that looks random. Steele, Lea & Flood, *Fast splittable PRNGs*, OOPSLA 2014."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def id_hash(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """A stable 64-bit hash of each id, (n,) int64 or unicode; the array's width and byte order do not matter.

    Unicode is hashed multilinearly (sum of code point times a fixed random word), which zero padding leaves as it is.
    """
    if ids.dtype.kind == "i":
        return splitmix64(ids.astype(np.int64).view(np.uint64))
    width = ids.dtype.itemsize // 4
    words = splitmix64(np.arange(1, width + 1, dtype=np.uint64)) | np.uint64(1)
    hashed = np.zeros(len(ids), dtype=np.uint64)
    for start in range(0, len(ids) if width else 0, _ROWS):
        text = np.ascontiguousarray(ids[start : start + _ROWS].astype(f"=U{width}"))
        hashed[start : start + _ROWS] = text.view(np.uint32).reshape(-1, width).astype(np.uint64) @ words
    return splitmix64(hashed ^ _GOLDEN)


def keys(ids: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """(n,) uint64, uniform and independent for each (seed, id)."""
    return splitmix64(id_hash(ids) ^ splitmix64(np.array([seed % 2**64], dtype=np.uint64)))


def salted(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that two draws of one request have nothing to do with each other."""
    return int(id_hash(np.array([purpose]))[0]) ^ (seed % 2**64)


def uniforms(ids: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """(n,) float64, uniform in [0, 1) for each (seed, id)."""
    return (keys(ids, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def gumbels(ids: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """(n,) float64, Gumbel-distributed for each (seed, id). Added to log w, the highest is drawn in proportion to w."""
    noise: NDArray[np.float64] = -np.log(-np.log(uniforms(ids, seed) + 2.0**-54))
    return noise


def sample(ids: NDArray[Any], seed: int, count: int) -> NDArray[np.int64]:
    """Rows, ascending, of `count` ids drawn uniformly without replacement; all rows where there are no more."""
    if count >= len(ids):
        return np.arange(len(ids))
    drawn = keys(ids, seed)
    return np.sort(np.argpartition(drawn, count)[:count])

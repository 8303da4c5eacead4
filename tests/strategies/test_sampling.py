"""Drawing by rejection, and drawing with known chances, against the chances written out."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draw
from scipy.spatial.distance import cdist
from scipy.stats import chisquare

from strategies import kernels
from strategies.kernels import blocks, sampling
from strategies.kernels.nearness import Nearness

Array = np.ndarray[Any, Any]


def sequence_chances(apart: Array, least: Array, picks: int) -> dict[tuple[int, ...], float]:
    """The chance of every sequence, where each draw goes by the least squared distance (n,) to those before."""
    chances = {}
    for sequence in permutations(range(len(apart)), picks):
        chance, left = 1.0, least.copy()
        for row in sequence:
            chance *= left[row] / left.sum()
            left = np.minimum(left, apart[row])
        chances[sequence] = chance
    return chances


def gradients(points: Array, residuals: Array) -> Array:
    return np.einsum("nk,nd->nkd", residuals, points).reshape(len(points), -1)


def fits(counts: dict[tuple[int, ...], int], chances: dict[tuple[int, ...], float], draws: int) -> bool:
    """Rare sequences are counted together, as chi-square wants."""
    often = [s for s in chances if chances[s] * draws >= 5]
    observed = [counts.get(s, 0) for s in often]
    expected = [chances[s] * draws for s in often]
    return chisquare([*observed, draws - sum(observed)], [*expected, draws - sum(expected)]).pvalue > 1e-4


@pytest.mark.parametrize("patience", ["never anew", "often anew"])
def test_d2_sampling_draws_each_sequence_with_its_chance(monkeypatch: pytest.MonkeyPatch, patience: str) -> None:
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) + 3
    centre = points[:1] + 0.3
    if patience == "often anew":
        monkeypatch.setattr(sampling, "_PATIENCE", 0)
    counts: dict[tuple[int, ...], int] = {}

    for seed in range(2000):
        sequence = tuple(kernels.d2_sampling(points, centre, 3, seed)[0].tolist())
        counts[sequence] = counts.get(sequence, 0) + 1

    apart = cdist(points, points, "sqeuclidean")
    assert fits(counts, sequence_chances(apart, cdist(points, centre, "sqeuclidean")[:, 0], 3), 2000)


def test_d2_sampling_of_outer_products_is_that_of_the_products_written_out() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(5, 3)).astype(np.float32)
    residuals = kernels.residuals(rng.dirichlet(np.ones(4), 5).astype(np.float32))
    counts: dict[tuple[int, ...], int] = {}

    for seed in range(2000):
        sequence = tuple(kernels.d2_sampling(points, points[:0], 4, seed, lambda rows: residuals[rows])[0].tolist())
        counts[sequence] = counts.get(sequence, 0) + 1

    whole = gradients(points, residuals)
    first = int(np.square(whole).sum(axis=1).argmax())
    apart = cdist(whole, whole, "sqeuclidean")
    chances = {(first, *s): c for s, c in sequence_chances(apart, apart[first], 3).items()}
    assert fits(counts, chances, 2000)


@pytest.mark.parametrize("factored", [False, True])
def test_nearness_is_the_squared_distance_to_the_nearest(factored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 3000)
    rng = np.random.default_rng(2)
    points = (rng.normal(size=(200, 8)) + 5).astype(np.float16)
    residuals = kernels.residuals(rng.dirichlet(np.ones(3), 200).astype(np.float32))
    whole = gradients(points.astype(float), residuals.astype(float)) if factored else points.astype(float)
    centres = points[:0] if factored else points[:4] + 1

    nearness = Nearness(points, centres, 9, (lambda rows: residuals[rows]) if factored else None)
    for row in range(20, 25):
        nearness.add(row)
    some = nearness.update(np.array([3, 150, 20, 77])).copy()
    nearness.refresh()
    for row in range(30, 34):
        nearness.add(row)
    late = nearness.update(np.arange(200)).copy()
    nearness.refresh()

    chosen = np.concatenate([whole[20:25], whole[:0] if factored else centres.astype(float)])
    assert np.allclose(some, cdist(whole[[3, 150, 20, 77]], chosen, "sqeuclidean").min(axis=1), rtol=1e-4, atol=1e-6)
    least = cdist(whole, np.concatenate([chosen, whole[30:34]]), "sqeuclidean").min(axis=1)
    assert np.allclose(late, least, rtol=1e-4, atol=1e-3)
    assert np.allclose(nearness.least.numpy(), late, rtol=1e-4, atol=1e-3)
    assert nearness.least[[20, 24, 30, 33]].tolist() == [0] * 4


def test_d2_sampling_passes_over_the_points_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    plain = Nearness.refresh
    monkeypatch.setattr(Nearness, "refresh", lambda self: (passes.append(1), plain(self))[1])
    points = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)

    rows, squared = kernels.d2_sampling(points, points[:5], 500, seed=3)

    assert len(set(rows.tolist())) == 500
    assert (squared > 0).all()
    assert len(passes) <= 3


def test_doubles_of_the_drawn_come_last_and_by_row() -> None:
    points = np.repeat(np.random.default_rng(0).normal(size=(4, 3)), 3, axis=0).astype(np.float32)

    rows, squared = kernels.d2_sampling(points, points[:0], 12, seed=1)

    assert sorted((rows[:4] // 3).tolist()) == [0, 1, 2, 3]
    assert rows[4:].tolist() == sorted(set(range(12)) - set(rows[:4].tolist()))
    assert squared[4:].tolist() == [0] * 8


@given(sizes=draw.lists(draw.floats(1e-6, 1e6), min_size=1, max_size=20), data=draw.data())
def test_chances_sum_to_the_count_and_keep_the_order_of_the_sizes(sizes: list[float], data: draw.DataObject) -> None:
    count = data.draw(draw.integers(0, len(sizes)))

    chances = kernels.inclusion(np.array(sizes), count)

    assert chances.sum() == pytest.approx(count)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances[np.argsort(sizes, kind="stable")]) >= -1e-12).all()


def test_systematic_sampling_draws_each_row_with_its_chance() -> None:
    chances = kernels.inclusion(np.array([9.0, 1, 2, 3, 4, 5, 0.5]), 3)
    rng = np.random.default_rng(0)
    counts = np.zeros(7)

    for _ in range(6000):
        rows = kernels.systematic(chances, rng.permutation(7), rng.random())
        assert len(set(rows.tolist())) == 3
        counts[rows] += 1

    assert counts[0] == 6000 * chances[0] or chances[0] < 1
    assert np.allclose(counts / 6000, chances, atol=4 * np.sqrt(0.25 / 6000))

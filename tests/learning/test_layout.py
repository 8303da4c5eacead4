"""The two directions in which a pool varies most, against a full decomposition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from backend.learning.layout import beside, principal_axes


@pytest.mark.parametrize("dims", [3, 40])
def test_the_axes_are_those_of_the_full_decomposition(dims: int) -> None:
    random = np.random.default_rng(dims)
    scales = np.array([9.0, 4.0, *np.linspace(1.5, 0.1, dims - 2)])
    turned = np.linalg.qr(random.normal(size=(dims, dims)))[0]
    rows = (random.normal(size=(500, dims)) * scales) @ turned.T + random.normal(size=dims)

    axes = principal_axes(rows)

    full = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:2].T
    assert np.abs(np.sum(axes.directions * full, axis=0)) == pytest.approx([1, 1], abs=1e-3)
    assert axes.directions.T @ axes.directions == pytest.approx(np.eye(2), abs=1e-4)
    assert axes.place(rows).mean(axis=0) == pytest.approx([0, 0], abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_few_items_or_few_numbers_have_a_place_too(items: int, dims: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(items, dims)).astype(np.float16)

    places = principal_axes(rows).place(rows)

    assert places.shape == (items, 2)
    assert np.isfinite(places).all()


def test_more_axes_than_two_span_what_the_full_decomposition_does() -> None:
    random = np.random.default_rng(1)
    turned = np.linalg.qr(random.normal(size=(30, 30)))[0]
    rows = (random.normal(size=(600, 30)) * np.linspace(9, 0.2, 30)) @ turned.T

    axes = principal_axes(rows, count=6)

    full = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:6]
    assert np.linalg.svd(full @ axes.directions, compute_uv=False) == pytest.approx(np.ones(6), abs=0.05)


def test_a_new_item_comes_to_the_mean_of_its_nearest() -> None:
    random = np.random.default_rng(2)
    known, places = random.normal(size=(300, 8)).astype(np.float32), random.normal(size=(300, 2)).astype(np.float32)
    rows = random.normal(size=(150, 8)).astype(np.float32)

    found = beside(known, places, rows)

    nearest = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(known).kneighbors(rows, return_distance=False)
    assert found == pytest.approx(places[nearest].mean(axis=1), abs=1e-5)
    assert beside(known, places, rows[:0]).shape == (0, 2)
    assert beside(known[:2], places[:2], rows[:1]) == pytest.approx(places[:2].mean(axis=0)[None], abs=1e-6)

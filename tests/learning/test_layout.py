"""The two directions in which a pool varies most, against a full decomposition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.learning.layout import principal_axes


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

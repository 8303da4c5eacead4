"""Searching cells of coded points: the same as looking at all of them, nearly always."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from backend.learning.anchors import PROBED
from backend.learning.neighbours import Graph, build


def graph_of(x: NDArray[np.floating]) -> Graph:
    keys = np.array([f"{row:05d}".encode() for row in range(len(x))])
    return build(keys, lambda wanted: x[wanted.astype(np.int64)])


def oracle(graph: Graph, x: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """scikit-learn's answer in the graph's space."""
    places = ((x - graph.mean) / graph.scale) @ graph.basis
    points = graph.points / np.linalg.norm(graph.points, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(points)
    return np.asarray(search.kneighbors(places, return_distance=False))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 900), d=st.integers(2, 40), count=st.integers(1, PROBED))
def test_a_pool_of_few_cells_is_held_whole_and_searched_exactly(seed: int, n: int, d: int, count: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    anchors, nodes = graph_of(x).cells

    found = anchors.nearest(x[:20], count)

    assert sorted(nodes) == list(range(n))
    assert (anchors.starts[0], anchors.starts[-1]) == (0, n)
    assert (np.diff(anchors.starts) > 0).all()
    assert all(len(set(row)) == len(row) for row in found)
    cosines = (x[:20] @ anchors.projection + anchors.offset) @ anchors.codes.T.astype(np.float32)
    highest = np.sort(cosines, axis=1)[:, -min(count, n) :]
    np.testing.assert_allclose(np.sort(np.take_along_axis(cosines, found, axis=1), axis=1), highest, atol=1e-3)


def test_nearly_all_of_the_true_neighbours_are_found() -> None:
    x = np.asarray(load_digits().data, np.float32)
    x = np.concatenate([x + np.random.default_rng(at).normal(0, 2, x.shape) for at in range(6)]).astype(np.float32)
    graph = graph_of(x[:10_000])
    anchors, nodes = graph.cells

    found, true = nodes[anchors.nearest(x[10_000:], 15)], oracle(graph, x[10_000:], 15)

    recall = np.mean([len(set(one) & set(other)) / 15 for one, other in zip(found, true, strict=True)])
    assert len(anchors.centres) == 50
    assert recall > 0.95
    assert len(anchors) == 10_000


def test_nothing_asked_and_a_row_that_is_no_number(recwarn: pytest.WarningsRecorder) -> None:
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    anchors, _ = graph_of(x.copy()).cells
    x[3] = np.nan

    assert anchors.nearest(x[:0], 15).shape == (0, 15)
    assert anchors.nearest(x, 15).shape == (300, 15)
    assert anchors.nearest(x[:5], 15).max() < 300
    assert not recwarn.list

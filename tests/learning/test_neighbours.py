"""The neighbour graph against brute force, however it came to be; and labels that spread over it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.errors import GraphUnreadable
from backend.learning import neighbours
from backend.learning.neighbours import NEIGHBOURS, Graph, build, update
from backend.learning.propagation import affinity, propagate

Floats = NDArray[np.float32]


class Pool:
    """Embeddings by key, and how many of them were read."""

    def __init__(self, size: int, dimensions: int = 24, seed: int = 0) -> None:
        self.rows = np.random.default_rng(seed).normal(size=(size, dimensions)).astype(np.float32)
        self.was_read = 0

    def keys(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        return np.array([f"{row:06d}".encode() for row in rows], dtype="S6")

    def read(self, keys: NDArray[np.bytes_]) -> Floats:
        self.was_read += len(keys)
        return self.rows[keys.astype(np.int64)]


def nearest(graph: Graph, rows: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The lists by brute force, in the graph's own space."""
    points = (rows.astype(np.float64) - graph.mean) / graph.scale @ graph.basis
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    cosines = points @ points.T
    np.fill_diagonal(cosines, -2)
    columns = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(rows) - 1)]
    return columns, np.take_along_axis(cosines, columns, axis=1)


def assert_exact(graph: Graph, rows: Floats) -> None:
    columns, cosines = nearest(graph, rows)
    np.testing.assert_allclose(graph.cosines, cosines, atol=1e-5)
    is_clear = (
        np.abs(np.diff(cosines, axis=1)).min(axis=1, initial=1) > 1e-5
    )  # elsewhere two neighbours are equally near
    np.testing.assert_array_equal(graph.columns[is_clear, :-1], columns[is_clear, :-1])


@pytest.mark.parametrize("size", [1, 2, 10, 400])
def test_the_graph_is_that_of_brute_force(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 400 * 4 * 7)  # seven rows a block
    pool = Pool(size)

    graph = build(pool.keys(np.arange(size)), pool.read)

    assert_exact(graph, pool.rows)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_graph_that_follows_the_pool_is_that_of_brute_force(data: st.DataObject) -> None:
    pool = Pool(160, seed=data.draw(st.integers(0, 5)))
    rows = np.arange(data.draw(st.integers(20, 100)))
    graph = build(pool.keys(rows), pool.read)

    for _ in range(3):
        gone = data.draw(st.sets(st.sampled_from(rows.tolist()), max_size=len(rows) // 3))
        come = data.draw(st.sets(st.integers(0, 159), max_size=20))
        rows = np.array(sorted((set(rows.tolist()) - gone) | come))
        graph = update(graph, pool.keys(rows), pool.read)

        assert graph.keys.tolist() == pool.keys(rows).tolist()
        assert_exact(graph, pool.rows[rows])


def test_an_update_reads_only_what_is_new() -> None:
    pool = Pool(500)
    graph = build(pool.keys(np.arange(450)), pool.read)
    pool.was_read = 0

    same = update(graph, pool.keys(np.arange(450)), pool.read)
    grown = update(graph, pool.keys(np.arange(460)), pool.read)

    assert same is graph
    assert pool.was_read == 10
    assert len(grown) == 460


def test_a_graph_survives_its_file_and_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    pool = Pool(60)
    graph = build(pool.keys(np.arange(60)), pool.read)
    path = tmp_path / "graph.safetensors"

    graph.save(path)

    loaded = Graph.load(path)
    for name in ("keys", "mean", "scale", "basis", "points", "columns", "cosines"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(graph, name))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GraphUnreadable, match="Delete the file"):
        Graph.load(path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), alpha=st.sampled_from([0.3, 0.9, 0.99]))
def test_propagation_is_its_closed_form(seed: int, n: int, alpha: float) -> None:
    pool = Pool(n, 5, seed)
    sources = np.zeros((n, 3), np.float32)
    sources[: max(1, n // 4), seed % 3] = 1
    graph = build(pool.keys(np.arange(n)), pool.read)

    found = propagate(affinity(graph), sources, alpha, tolerance=1e-6)

    adjacency = np.zeros((n, n))
    for row in range(n):
        adjacency[row, graph.columns[row]] = np.maximum(graph.cosines[row], 0) ** 3
    adjacency += adjacency.T
    degrees = adjacency.sum(axis=1)
    inverse = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    dense = inverse[:, None] * adjacency * inverse
    expected = (1 - alpha) * np.linalg.solve(np.eye(n) - alpha * dense, sources)
    np.testing.assert_allclose(found, expected, atol=2e-4)

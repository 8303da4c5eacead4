"""The pool's neighbour graph: which items are alike. It is kept from round to round, and follows the pool."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from backend.artefacts import whole
from backend.errors import GraphUnreadable
from backend.learning.anchors import NEIGHBOURS, Anchors, encode
from strategies import kernels

_RANK = 128
_SPACE_ROWS = 8_192  # rows that the principal components are fitted to
_BLOCK_BYTES = 64 * 2**20
_CELL_POINTS = 200
_CLUSTERED = 20_000  # points that the cells' centres come from
_NAMES = ("keys", "mean", "scale", "basis", "points", "columns", "cosines")

Keys = NDArray[np.bytes_]
Read = Callable[[Keys], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Graph:
    """The `NEIGHBOURS` nearest of each of n nodes by cosine, exact in the space of r principal components.

    keys: (n,) bytes, sorted and unique. mean, scale: (d,) float32 and basis: (d, r) float32, the space, which stays
    while nodes come and go. points: (n, r) float32 unit rows. columns: (n, k) int32, the nearest first.
    cosines: (n, k) float32; -2 fills up where there are not k others.
    """

    keys: Keys
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    basis: NDArray[np.float32]
    points: NDArray[np.float32]
    columns: NDArray[np.int32]
    cosines: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def cells(self) -> tuple[Anchors, NDArray[np.int32]]:
        """The points as something to search, and the node that each of its rows is, (n,). About a second at 50,000."""
        points = torch.from_numpy(self.points)
        drawn = np.random.default_rng(0).permutation(len(points))[:_CLUSTERED]
        count = max(1, len(points) // _CELL_POINTS)
        _, centres = kernels.kmeans(points[np.sort(drawn)], min(count, len(drawn)), seed=0, iterations=10)
        centres = torch.nn.functional.normalize(centres, dim=1)
        cell = kernels.nearest(points, centres)[0].numpy()
        held, cell = np.unique(cell, return_inverse=True)
        nodes = np.argsort(cell, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(cell))]).astype(np.int32)
        projection = (self.basis.astype(np.float64) / self.scale[:, None]).astype(np.float32)
        offset = -(self.mean @ projection)
        return Anchors(projection, offset, centres.numpy()[held], starts, encode(self.points[nodes])), nodes

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The node of each key, (m,); a key that is no node is an error of the caller."""
        at = np.searchsorted(self.keys, keys)
        assert (self.keys[np.minimum(at, len(self) - 1)] == keys).all()
        return at

    def save(self, path: Path) -> None:
        """Write a safetensors file in one step."""
        arrays = {name: getattr(self, name) for name in _NAMES[1:]}
        with whole(path) as file:
            file.write(save({"keys": pack(self.keys), **arrays}))

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Read what `save` wrote. Raises GraphUnreadable for anything else: a graph can be built again."""
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in _NAMES}
        except (OSError, SafetensorError) as error:
            raise GraphUnreadable(path=path, problem=str(error)) from None
        graph = cls(keys=unpack(arrays.pop("keys")), **arrays)
        n, rank = len(graph), graph.basis.shape[-1]
        if graph.points.shape != (n, rank) or graph.columns.shape != graph.cosines.shape or len(graph.columns) != n:
            raise GraphUnreadable(path=path, problem="its parts do not fit together")
        if n and not (graph.columns.min() >= 0 and graph.columns.max() < n):
            raise GraphUnreadable(path=path, problem="it names nodes that it does not have")
        return graph


def pack(keys: Keys) -> NDArray[np.uint8]:
    """Keys as safetensors can hold them: (n, width) bytes."""
    return np.frombuffer(keys.tobytes(), np.uint8).reshape(len(keys), keys.dtype.itemsize)


def unpack(packed: NDArray[np.uint8]) -> Keys:
    """What `pack` made, as keys (n,)."""
    return np.frombuffer(packed.tobytes(), f"S{packed.shape[1]}")


def build(keys: Keys, read: Read) -> Graph:
    """The graph of these items; `read` gives their embeddings (m, d) float16 or float32, a block of keys at a time.

    Takes n² r multiplications and 64 MiB beside the graph: about 3 s for 20,000 nodes on two cores.
    """
    keys = np.unique(keys)
    picked = np.random.default_rng(0).permutation(len(keys))[:_SPACE_ROWS]
    sample = as_rows(read(keys[np.sort(picked)]))
    scale, mean = torch.std_mean(sample, dim=0, correction=0)
    scale[scale <= 1e-6 * scale.max().clamp_min(1e-30)] = 1.0
    sample = (sample - mean) / scale
    basis = torch.linalg.eigh(sample.T @ sample).eigenvectors.flip(1)[:, :_RANK]
    space = (mean.numpy(), scale.numpy(), np.ascontiguousarray(basis.numpy()))
    points = _points(space, keys, read)
    columns, cosines = _nearest(points, np.arange(len(keys)))
    return Graph(keys, *space, points, columns, cosines)


def update(graph: Graph, keys: Keys, read: Read) -> Graph:
    """The graph of `keys`, reading only what is new; the same lists as a whole computation in the graph's space.

    Beyond twice or below half the nodes the space is fitted anew. Otherwise the work is that of the new nodes and of
    the nodes whose neighbour went.
    """
    keys = np.unique(keys)
    if not len(graph) or not len(graph) / 2 <= len(keys) <= 2 * len(graph):
        return build(keys, read)
    is_kept = np.isin(graph.keys, keys, assume_unique=True)
    is_new = ~np.isin(keys, graph.keys, assume_unique=True)
    if is_kept.all() and not is_new.any():
        return graph
    old = np.flatnonzero(~is_new)
    points = np.empty((len(keys), graph.basis.shape[1]), np.float32)
    points[old] = graph.points[is_kept]
    if is_new.any():
        points[is_new] = _points((graph.mean, graph.scale, graph.basis), keys[is_new], read)
    place = np.full(len(graph), -1, np.int64)
    place[is_kept] = old
    width = min(NEIGHBOURS, len(keys) - 1)
    if graph.columns.shape[1] != width:
        columns, cosines = _nearest(points, np.arange(len(keys)))
        return Graph(keys, graph.mean, graph.scale, graph.basis, points, columns, cosines)
    columns = np.empty((len(keys), width), np.int32)
    cosines = np.empty((len(keys), width), np.float32)
    columns[old], cosines[old] = place[graph.columns[is_kept]], graph.cosines[is_kept]
    is_stale = is_new.copy()
    is_stale[old] = (columns[old] < 0).any(axis=1)
    stale, new = np.flatnonzero(is_stale), np.flatnonzero(is_new)
    columns[stale], cosines[stale] = _nearest(points, stale)
    _admit(points, columns, cosines, np.flatnonzero(~is_stale), new)
    return Graph(keys, graph.mean, graph.scale, graph.basis, points, columns, cosines)


def as_rows(embeddings: NDArray[Any]) -> Tensor:
    """Embeddings (n, d) as float32; what is not finite is 0."""
    return torch.from_numpy(np.asarray(embeddings).astype(np.float32)).nan_to_num_(0.0, 0.0, 0.0)


def _points(space: tuple[NDArray[np.float32], ...], keys: Keys, read: Read) -> NDArray[np.float32]:
    """Unit rows (m, r) in the space, read a block at a time."""
    mean, scale, basis = (torch.from_numpy(part) for part in space)
    points = np.empty((len(keys), basis.shape[1]), np.float32)
    for start in range(0, len(keys), _SPACE_ROWS):
        rows = slice(start, start + _SPACE_ROWS)
        projected = ((as_rows(read(keys[rows])) - mean) / scale) @ basis
        points[rows] = torch.nn.functional.normalize(projected, dim=1).numpy()
    return points


def _nearest(points: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Columns and cosines (m, k) of these rows' nearest other nodes."""
    everything = torch.from_numpy(points)
    k = max(0, min(NEIGHBOURS, len(points) - 1))
    columns, cosines = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    for part in _parts(len(rows), len(points)):
        here = torch.from_numpy(rows[part])
        similarity = everything[here] @ everything.T
        similarity[torch.arange(len(here)), here] = -2.0
        best, index = similarity.topk(k, dim=1)
        columns[part], cosines[part] = index.numpy(), best.numpy()
    return columns, cosines


def _admit(
    points: NDArray[np.float32],
    columns: NDArray[np.int32],
    cosines: NDArray[np.float32],
    rows: NDArray[np.int64],
    new: NDArray[np.int64],
) -> None:
    """Let the new nodes into the lists of `rows`, in place, where they are nearer than who is there."""
    k = min(columns.shape[1], len(new))
    if not k:
        return
    arrivals = torch.from_numpy(points[new])
    for part in _parts(len(rows), len(new)):
        here = rows[part]
        best, index = (torch.from_numpy(points[here]) @ arrivals.T).topk(k, dim=1)
        both = np.concatenate([cosines[here], best.numpy()], axis=1)
        whose = np.concatenate([columns[here], new[index.numpy()]], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, : columns.shape[1]]
        cosines[here] = np.take_along_axis(both, order, axis=1)
        columns[here] = np.take_along_axis(whose, order, axis=1)


def _parts(rows: int, width: int) -> list[slice]:
    block = max(1, _BLOCK_BYTES // (4 * max(1, width)))
    return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]

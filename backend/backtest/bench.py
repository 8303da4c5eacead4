"""A labelled data set as arrays on disk, which the processes of a backtest share as memory maps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.artefacts import whole
from backend.errors import BenchUnusable
from backend.learning.neighbours import Graph, Keys, build

_FEWEST = 20


@dataclass(frozen=True)
class Bench:
    """A pool and a test set with known labels, below `folder`."""

    folder: Path

    @classmethod
    def write(
        cls,
        folder: Path,
        classes: Sequence[str],
        pool: tuple[NDArray[Any], NDArray[np.int64]],
        test: tuple[NDArray[Any], NDArray[np.int64]],
        moments: NDArray[np.int64] | None = None,
    ) -> "Bench":
        """Keep embeddings (n, d) and class indices (n,) of both parts, and the pool's neighbour graph.

        moments: (n,), when each of the pool came, in any unit; without it they came in the order of their rows.
        Raises BenchUnusable where there is too little to tell strategies apart.
        """
        if len(np.unique(pool[1])) < 2 or min(len(pool[1]), len(test[1])) < _FEWEST:
            problem = (
                f"{len(pool[1])} items in {len(np.unique(pool[1]))} classes to choose from, {len(test[1])} to test"
            )
            raise BenchUnusable(problem=problem)
        folder.mkdir(parents=True, exist_ok=True)
        bench = cls(folder)
        for name, part in (("pool", pool), ("test", test)):
            for kind, array in (("x", part[0].astype(np.float16)), ("y", part[1].astype(np.int64))):
                with whole(folder / f"{name}_{kind}.npy") as file:
                    np.save(file, array)
        with whole(folder / "pool_t.npy") as file:
            np.save(file, np.arange(len(pool[1])) if moments is None else moments.astype(np.int64))
        with whole(folder / "classes.json") as file:
            file.write(json.dumps(list(classes)).encode())
        build(bench.keys(np.arange(len(pool[1]))), bench.read).save(folder / "graph.safetensors")
        return bench

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(json.loads((self.folder / "classes.json").read_text()))

    @cached_property
    def graph(self) -> Graph:
        return Graph.load(self.folder / "graph.safetensors")

    @cached_property
    def near_pool(self) -> NDArray[np.int64]:
        """The pool's neighbours among the graph's cells, which no fit changes."""
        return self.graph.cells[0].neighbours(self.pool)

    @cached_property
    def near_test(self) -> NDArray[np.int64]:
        """Those of the test set."""
        return self.graph.cells[0].neighbours(self.test)

    @cached_property
    def pool(self) -> NDArray[np.float16]:
        return self._array("pool_x")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        return self._array("pool_y")

    @cached_property
    def moments(self) -> NDArray[np.int64]:
        """(n,) when each of the pool came."""
        return self._array("pool_t")

    @cached_property
    def test(self) -> NDArray[np.float16]:
        return self._array("test_x")

    @cached_property
    def test_labels(self) -> NDArray[np.int64]:
        return self._array("test_y")

    def keys(self, rows: NDArray[np.int64]) -> Keys:
        """The graph's names of the pool's rows."""
        return np.char.zfill(rows.astype("S9"), 9)

    def read(self, keys: Keys) -> NDArray[Any]:
        return self.pool[keys.astype(np.int64)]

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array

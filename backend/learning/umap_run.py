"""UMAP in a child process of its own, which dies with its parent and takes numba and LLVM with it.

    python -m backend.learning.umap_run FOLDER

is the child. It needs `nextbatch[umap]`; the parent does not.

McInnes, Healy & Melville, *UMAP: uniform manifold approximation and projection*, arXiv:1802.03426.
"""

import importlib.util
import os
import resource
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from backend.artefacts import whole
from backend.errors import UmapFailed
from backend.learning.layout import beside
from backend.processes import last_words, see_through, spawn

CHILD = "backend.learning.umap_run"
MOST_FITTED = 100_000
MEMORY_BYTES = 3 * 2**30
_ROWS, _PLACES, _LOG = "rows.safetensors", "places.safetensors", "umap.log"
_NEIGHBOURS = 15
_NICE = 19


def is_there() -> bool:
    """Whether `nextbatch[umap]` is installed; imports nothing of it."""
    return importlib.util.find_spec("umap") is not None


def unfold(rows: NDArray[np.float32], folder: Path, stopping: threading.Event) -> NDArray[np.float32] | None:
    """Places (n, 2) float32 of rows (n, k), n at least 3, of which the first 100,000 are fitted and the others placed
    beside them; None once `stopping` is set.

    One thread, the lowest priority, at most 3 GiB. The child is killed with the thread that calls this. Raises
    UmapFailed with the end of its log.
    """
    made, log = folder / _PLACES, folder / _LOG
    for left in (made, log):
        left.unlink(missing_ok=True)
    with whole(folder / _ROWS, is_durable=False) as file:
        file.write(save({"rows": np.ascontiguousarray(rows, np.float32)}))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    child = spawn([sys.executable, "-m", CHILD, folder], log, os.environ | threads, nice=_NICE)
    status = see_through(child, stopping.is_set)
    try:
        places = load_file(made)["places"]
    except (OSError, SafetensorError, KeyError):
        if stopping.is_set():
            return None
        raise UmapFailed(problem=last_words(log, status)[:300], log=log) from None
    if places.shape != (len(rows), 2) or not np.isfinite(places).all():
        raise UmapFailed(problem=f"it gave {places.shape} places, not all of them finite", log=log)
    return places.astype(np.float32)


def _fit(folder: Path) -> None:
    """The child's work. It begins at the principal axes, so that the map looks like the one that people know."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    import umap

    rows = load_file(folder / _ROWS)["rows"]
    fitted = rows[:MOST_FITTED]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, len(fitted) - 1), init="pca", random_state=0, n_jobs=1, low_memory=True
        )
        places = np.asarray(model.fit_transform(fitted), np.float32)
    places = np.concatenate([places, beside(fitted, places, rows[MOST_FITTED:])])
    with whole(folder / _PLACES, is_durable=False) as file:
        file.write(save({"places": places}))


if __name__ == "__main__":
    _fit(Path(sys.argv[1]))

"""What the pool lent to a fit, kept beside the head: with snapshot and embeddings, the head can be made again."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from backend.artefacts import whole
from backend.errors import LoanUnreadable
from backend.learning.anchors import Anchors
from backend.learning.candidates import Neighbourhood, Unlabelled
from backend.learning.neighbours import Graph, Keys, Read, pack, unpack

_NAMES = ("keys", "columns", "cosines", "sample")
_ANCHORS = ("projection", "offset", "centres", "starts", "codes")
_ASKED = (*_ANCHORS, "nodes")
"""Beside these where a head could ask neighbours."""


def save_loan(lent: Unlabelled, folder: Path) -> str:
    """Write the graph's edges and the sample to ``DIGEST.safetensors`` and return the digest.

    About 300 bytes a node: 15 MB at 50,000. The graph's space and points are left out: no fit reads them.
    """
    arrays = _arrays(lent)
    name = _digest(arrays)
    path = folder / f"{name}.safetensors"
    if not path.exists():
        with whole(path, 0o444) as file:
            file.write(save(arrays))
    return name


def load_loan(path: Path, labelled: Keys, read: Read) -> Unlabelled:
    """What `save_loan` wrote, for the labelled rows' keys (l,), with the sample's embeddings from `read`.

    Raises LoanUnreadable for a file that is missing, changed, or something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            wanted = (*_NAMES, *_ASKED) if names.issuperset(_ASKED) else _NAMES
            arrays = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise LoanUnreadable(path=path, problem=str(error)) from None
    if _digest(arrays) != path.name.removesuffix(".safetensors"):
        raise LoanUnreadable(path=path, problem="its content does not match its name")
    keys = unpack(arrays["keys"])
    nothing = np.empty((0, 0), np.float32)
    graph = Graph(keys, nothing, nothing, nothing, nothing, arrays["columns"], arrays["cosines"])
    sample = arrays["sample"]
    embeddings = np.asarray(read(keys[sample])).astype(np.float32)
    asked = None
    if "nodes" in arrays:
        asked = Neighbourhood(Anchors(*(arrays[name] for name in _ANCHORS)), arrays["nodes"], read)
    return Unlabelled(graph, graph.find(labelled), sample, embeddings, asked)


def _arrays(lent: Unlabelled) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "keys": pack(lent.graph.keys),
        "columns": lent.graph.columns,
        "cosines": lent.graph.cosines,
        "sample": lent.sample,
    }
    asked = lent.neighbourhood
    if asked is None:
        return arrays
    return arrays | {name: getattr(asked.anchors, name) for name in _ANCHORS} | {"nodes": asked.nodes}


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(b"nextbatch-loan-1")
    for name in (name for name in (*_NAMES, *_ASKED) if name in arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

"""A process that writes vectors until it is killed, and names what the store has acknowledged on its output.

python -m tests.scoring.vector_writer ROOT DIGEST WRITER PUTS
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.scoring.vectors import VectorStore

DIMS = 24
PER_PUT = 16


def content_hash(writer: str, number: int) -> str:
    return hashlib.sha256(f"{writer}:{number}".encode()).hexdigest()


def vector(hash_: str) -> NDArray[np.float16]:
    """The vector of a content, told by its hash alone, so that any reader can check it."""
    seed = int(hash_[:16], 16)
    return np.random.default_rng(seed).standard_normal(DIMS).astype(np.float16)


def main(root: str, digest: str, writer: str, puts: str) -> None:
    store = VectorStore(Path(root), digest, DIMS)
    print("open", flush=True)
    for put in range(int(puts)):
        hashes = [content_hash(writer, put * PER_PUT + i) for i in range(PER_PUT)]
        store.put(hashes, np.stack([vector(h) for h in hashes]))
        print(put, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

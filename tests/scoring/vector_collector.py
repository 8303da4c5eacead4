"""A process that puts, cleans and compacts until it is killed; contents of even number are wanted for ever.

python -m tests.scoring.vector_collector ROOT DIGEST SEGMENT_ROWS GRACE_S
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.scoring import compaction, vectors
from backend.scoring.vectors import VectorStore
from tests.scoring.vector_writer import DIMS, content_hash, vector

PER_TURN = 60
KNOWN = 4_000
_WANTED = frozenset(content_hash("collector", number) for number in range(0, KNOWN, 2))


def is_wanted(hashes: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([hash_ in _WANTED for hash_ in hashes], bool)


def main(root: str, digest: str, segment_rows: str, grace_s: str) -> None:
    vectors.SEGMENT_ROWS = int(segment_rows)  # many segments out of few rows
    vectors.GRACE_S = float(grace_s)
    compaction.MOVE_ROWS = 7
    store = VectorStore(Path(root), digest, DIMS)
    print("open", flush=True)
    for turn in range(KNOWN // PER_TURN):
        hashes = [content_hash("collector", turn * PER_TURN + i) for i in range(PER_TURN)]
        store.put(hashes, np.stack([vector(hash_) for hash_ in hashes]))
        print(turn, flush=True)
        compaction.clean(store, lambda: is_wanted)
        compaction.compact(store)


if __name__ == "__main__":
    main(*sys.argv[1:])

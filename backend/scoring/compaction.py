"""What a vector store can give back: vectors of contents that nobody wants, and the disk space of the dead."""

import fcntl
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.errors import VectorsDamaged
from backend.scoring import vectors
from backend.scoring.vectors import VectorStore

PAGE = 10_000  # contents looked at together
MOVE_ROWS = 4096  # a write transaction; other writers wait for one, some ten milliseconds
KEEP_SHARE = 0.7  # of a segment's rows; with fewer alive, moving them pays

IsWanted = Callable[[Sequence[str]], NDArray[np.bool_]]
"""Of each of some content hashes, whether it is to stay."""


def unwanted(store: VectorStore, is_wanted: IsWanted) -> int:
    """How many vectors `clean` would remove."""
    return sum(int((~is_wanted(page)).sum()) for page in store.index.pages(PAGE))


def clean(store: VectorStore, wanted: Callable[[], IsWanted]) -> int:
    """Remove the vectors that are not wanted, and return how many they were. Safe to be cut short.

    `wanted` is asked once no scan is between finding a content here and telling the catalogue so. Raises VectorsInUse
    while a scan runs.
    """
    removed = 0
    with store.held(fcntl.LOCK_EX | fcntl.LOCK_NB):
        is_wanted = wanted()
        for page in store.index.pages(PAGE):
            gone = [page[place] for place in np.flatnonzero(~is_wanted(page))]
            if gone:
                with store.index.write() as write:
                    write.remove(gone)
            removed += len(gone)
    return removed


def compact(store: VectorStore) -> int:
    """Move what is alive out of segments of which less than `KEEP_SHARE` is, and return how many were emptied.

    Beside readers and writers: a row stays where a reader located it for `vectors.GRACE_S`; then its file goes, with
    the next process that opens the store. Cut short, it leaves a segment half emptied, for the next time. Raises
    VectorsDamaged.
    """
    emptied = 0
    rows = vectors.SEGMENT_ROWS
    live, retired = store.index.live(rows), store.index.retired()
    for number in range(store.index.end() // rows):  # into the last one, rows are still being written
        if number not in retired and live.get(number, 0) < KEEP_SHARE * rows:
            _empty(store, number, number * rows, (number + 1) * rows)
            emptied += 1
    store.reap()
    return emptied


def _empty(store: VectorStore, number: int, first: int, stop: int) -> None:
    blocks = [block for block in store.index.blocks() if first <= block.first < stop]
    if not all(map(store.is_intact, blocks)):  # moved, the damage would get a checksum that fits it
        raise VectorsDamaged(path=store.path, problem=f"checksums in segment {number} differ")
    while held := store.index.held(first, stop):  # again, where another process cleaned or moved meanwhile
        for start in range(0, len(held), MOVE_ROWS):
            keys, places = zip(*held[start : start + MOVE_ROWS], strict=True)
            moving = store.gather(np.array(places, np.int64))
            with store.index.write() as write:
                store.append(write.end(), keys, moving, write.move)
    with store.index.write() as write:
        write.retire(number, first, stop, time.time())

"""The index of a vector store: which row holds which content, in an SQLite file of its own."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.errors import VectorStoreMismatch

ASK = 500  # hashes a query; SQLite before 3.32 allows 999 variables
MANY, SHARE = 20_000, 0.1  # so many hashes, and of all rows: from here on, reading through the index is faster
WAIT_S = 30.0  # a writer's turn takes milliseconds; longer than this the disk is stuck

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (hash BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS retired (segment INTEGER PRIMARY KEY, at REAL NOT NULL);
"""


@dataclass(frozen=True)
class Block:
    """Rows first … first + rows, written in one piece, and the CRC-32 of their bytes."""

    first: int
    rows: int
    crc: int


class Writing:
    """One write transaction: what it reads stays true until it commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def present(self, hashes: Sequence[str]) -> set[str]:
        """Those of `hashes` that have a row."""
        return {found for found, _ in _lookup(self._connection, hashes)}

    def end(self) -> int:
        """The first row that was never committed."""
        return _end(self._connection)

    def add(self, block: Block, hashes: Sequence[str]) -> None:
        """Commit a block, whose bytes are on disk, with the first `block.rows` of `hashes` as its keys."""
        rows = range(block.first, block.first + block.rows)
        pairs = [(bytes.fromhex(h), row) for h, row in zip(hashes, rows, strict=False)]
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", (block.first, block.rows, block.crc))
        self._connection.executemany("INSERT INTO vectors VALUES (?, ?)", pairs)

    def move(self, block: Block, hashes: Sequence[str]) -> None:
        """As `add`, for contents that have a row elsewhere: from now on they are found in this block."""
        rows = range(block.first, block.first + block.rows)
        pairs = [(row, bytes.fromhex(h)) for h, row in zip(hashes, rows, strict=False)]
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", (block.first, block.rows, block.crc))
        self._connection.executemany("UPDATE vectors SET row = ? WHERE hash = ?", pairs)

    def remove(self, hashes: Sequence[str]) -> None:
        """Remove contents from the index; their rows are dead from now on."""
        self._connection.executemany("DELETE FROM vectors WHERE hash = ?", [(bytes.fromhex(h),) for h in hashes])

    def retire(self, segment: int, first: int, stop: int, at: float) -> None:
        """No content has a row in this segment, first … stop, any more; its file may go some time after `at`."""
        self._connection.execute("DELETE FROM blocks WHERE first >= ? AND first < ?", (first, stop))
        # As in `forget`: the next row is never one that was used before, even where this segment is the last.
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, -1)", (first, stop - first))
        self._connection.execute("INSERT OR IGNORE INTO retired VALUES (?, ?)", (segment, at))

    def forget(self, blocks: Sequence[Block]) -> None:
        """Remove the rows of these blocks from the index. Their place in the file is not used again."""
        for block in blocks:
            span = (block.first, block.first + block.rows)
            self._connection.execute("DELETE FROM vectors WHERE row >= ? AND row < ?", span)
            # A block of no keys still marks its rows as used; its checksum is of nothing.
            self._connection.execute("UPDATE blocks SET crc = -1 WHERE first = ?", (block.first,))


class VectorIndex:
    """Content hash (sha256, 64 hex digits) → row. Threads share two connections: one reads, one writes."""

    def __init__(self, path: Path, meta: dict[str, str]) -> None:
        """Open or create. Raises VectorStoreMismatch where the file was made with another `meta`."""
        self.path = path
        self._reading = _Connection(path)
        self._writing = _Connection(path)
        with _opening(path), self._writing.held() as connection:
            connection.executescript(SCHEMA)
            rows = list(meta.items())
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", rows)
            found = dict(connection.execute("SELECT name, value FROM meta"))
            self._identity = _identity(path)
        if found != meta:
            raise VectorStoreMismatch(path=path, found=found, expected=meta)

    def is_there(self) -> bool:
        """Whether the file of that name is still the one that was opened."""
        return _identity(self.path) == self._identity

    def count(self) -> int:
        with self._reading.held() as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def end(self) -> int:
        """The first row that was never committed."""
        with self._reading.held() as connection:
            return _end(connection)

    def blocks(self) -> list[Block]:
        """Every block whose vectors are in use, in row order."""
        with self._reading.held() as connection:
            query = "SELECT first, rows, crc FROM blocks WHERE crc >= 0 ORDER BY first"
            return [Block(*row) for row in connection.execute(query)]

    def retired(self) -> dict[int, float]:
        """Segments that are not used any more, and since when (seconds since 1970)."""
        with self._reading.held() as connection:
            return dict(connection.execute("SELECT segment, at FROM retired"))

    def live(self, segment_rows: int) -> dict[int, int]:
        """By segment, how many of its rows a content has."""
        with self._reading.held() as connection:
            return dict(connection.execute("SELECT row / ?, count(*) FROM vectors GROUP BY 1", (segment_rows,)))

    def held(self, first: int, stop: int) -> list[tuple[str, int]]:
        """Contents with a row in first … stop, and those rows, in their order. Reads the whole index."""
        with self._reading.held() as connection:
            query = "SELECT hash, row FROM vectors WHERE row >= ? AND row < ? ORDER BY row"
            return [(found.hex(), row) for found, row in connection.execute(query, (first, stop))]

    def pages(self, size: int) -> Iterator[list[str]]:
        """All contents in the order of their hashes; those added meanwhile may be missing."""
        last = b""
        while True:
            with self._reading.held() as connection:
                query = "SELECT hash FROM vectors WHERE hash > ? ORDER BY hash LIMIT ?"
                found = [row[0] for row in connection.execute(query, (last, size))]
            if not found:
                return
            last = found[-1]
            yield [hash_.hex() for hash_ in found]

    def locate(self, hashes: Sequence[str]) -> NDArray[np.int64]:
        """Row of each hash, int64 (n,), -1 where there is none."""
        with self._reading.held() as connection:
            if len(hashes) >= MANY and len(hashes) >= SHARE * _end(connection):
                return _read_through(connection, hashes)
            rows = dict(_lookup(connection, hashes))
        return np.fromiter((rows.get(h, -1) for h in hashes), np.int64, len(hashes))

    @contextmanager
    def write(self) -> Iterator[Writing]:
        """Take the write lock of all processes; commit at the end, undo on an exception."""
        with self._writing.held() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writing(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


def read_meta(path: Path) -> dict[str, str]:
    """What an index was made with. Raises VectorStoreMismatch where there is none."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=WAIT_S)) as connection:
            return dict(connection.execute("SELECT name, value FROM meta"))
    except sqlite3.Error as error:
        raise VectorStoreMismatch(path=path, found=error, expected="an index") from error


class _Connection:
    """An SQLite connection that threads take in turn, opened anew after a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    @contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None or self._pid != os.getpid():
                self._connection, self._pid = self._open(), os.getpid()
            yield self._connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=WAIT_S, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # an acknowledged row outlives a power cut
        return connection

    def close(self) -> None:
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """One process at a time: SQLite does not wait, but fails, when two switch a new file to WAL at once."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _end(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT first + rows FROM blocks ORDER BY first DESC LIMIT 1").fetchone()
    return int(row[0]) if row else 0


def _read_through(connection: sqlite3.Connection, hashes: Sequence[str]) -> NDArray[np.int64]:
    """As `locate`, by reading the whole index, a sixteenth in memory at a time."""
    rows = np.full(len(hashes), -1, np.int64)
    places: dict[str, list[int]] = {}
    for place, hash_ in enumerate(hashes):
        places.setdefault(hash_[0], []).append(place)
    for digit, here in places.items():
        span = (bytes.fromhex(f"{digit}0"), bytes.fromhex(digit + "f" * 63))
        found = dict(connection.execute("SELECT hash, row FROM vectors WHERE hash BETWEEN ? AND ?", span))
        rows[here] = [found.get(bytes.fromhex(hashes[place]), -1) for place in here]
    return rows


def _lookup(connection: sqlite3.Connection, hashes: Sequence[str]) -> Iterator[tuple[str, int]]:
    for start in range(0, len(hashes), ASK):
        asked = [bytes.fromhex(h) for h in hashes[start : start + ASK]]
        marks = ",".join("?" * len(asked))
        query = f"SELECT hash, row FROM vectors WHERE hash IN ({marks})"  # noqa: S608  # only question marks
        for found, row in connection.execute(query, asked):
            yield found.hex(), row

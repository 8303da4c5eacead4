"""The embeddings of one encoder: append-only memory-mapped segments with an index keyed by content hash."""

import fcntl
import itertools
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from backend.errors import BadVectors, VectorsDamaged, VectorsInUse, VectorsMissing, VectorStoreMismatch
from backend.scoring.vector_index import Block, VectorIndex, read_meta

HEADER_BYTES = 4096  # one page, so that rows start aligned
SEGMENT_ROWS = 65_536  # 160 MiB at 1,280 dimensions of float16; row // SEGMENT_ROWS is the segment
READ_ROWS = 4096  # rows held while checksums are read back
GRACE_S = 3600.0  # far longer than any reader takes between `locate` and `gather`

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Committed rows that lie together: `vectors` is a read-only memory map (rows, dims) starting at row `first`."""

    first: int
    vectors: NDArray[np.generic]


@dataclass(frozen=True)
class Verification:
    """What `VectorStore.verify` found: `rows` checked, and the blocks whose bytes are not what was written."""

    rows: int
    damaged: tuple[Block, ...]


class VectorStore:
    """Vectors of one encoder digest below ``root / digest``; safe for many threads, processes and sudden death.

    A row becomes visible when its index entry commits, after its bytes have reached the disk. Writers take turns
    through the index's write lock; readers never wait for them. What a killed writer left behind the last
    committed row is overwritten by the next one. The folder must be on a local file system (SQLite in WAL mode).
    """

    def __init__(self, root: Path, digest: str, dims: int, dtype: DTypeLike = np.float16) -> None:
        """Open or create. Raises VectorStoreMismatch where the folder holds another shape, type or digest."""
        self.path = Path(root) / digest
        self.digest = digest
        self.dims = dims
        self.dtype: np.dtype[np.generic] = np.dtype(dtype)
        self._maps_lock, self._opening = threading.Lock(), threading.Lock()
        self._open()
        self.reap()

    def _open(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        meta = {"digest": self.digest, "dims": str(self.dims), "dtype": self.dtype.str}
        with self._maps_lock:
            self._maps: dict[int, NDArray[np.generic]] = {}
        self._index = VectorIndex(self.path / "index.db", meta)

    @property
    def index(self) -> VectorIndex:
        """The index; opened anew where the folder was given up meanwhile, and perhaps made again by another process."""
        if not self._index.is_there():
            with self._opening:
                if not self._index.is_there():
                    self._open()
        return self._index

    @classmethod
    def at(cls, folder: Path) -> "VectorStore":
        """The store in that folder, of whatever encoder. Raises VectorStoreMismatch where there is none."""
        meta = read_meta(folder / "index.db")
        return cls(folder.parent, meta["digest"], int(meta["dims"]), meta["dtype"])

    def __len__(self) -> int:
        """How many vectors are committed."""
        return self.index.count()

    def put(self, hashes: Sequence[str], rows: NDArray[np.floating]) -> int:
        """Store rows (n, dims) under their content hashes; returns how many were new. On return they are on disk.

        Idempotent: a hash that is there keeps its first vector. Raises BadVectors for a wrong shape or values
        that are not finite in the store's type, OSError or sqlite3.OperationalError where the disk refuses.
        """
        values = storable(rows, (len(hashes), self.dims), self.dtype)
        with self.index.write() as write:
            present = write.present(hashes)
            fresh = {h: i for i, h in enumerate(hashes) if h not in present}  # the last of a repeated hash
            if not fresh:
                return 0
            self.append(write.end(), list(fresh), values[list(fresh.values())], write.add)
        return len(fresh)

    def locate(self, hashes: Sequence[str]) -> Rows:
        """Row of each hash, int64 (n,), -1 where there is none."""
        return self.index.locate(hashes)

    def gather(self, wanted: Sequence[str] | Rows) -> NDArray[np.generic]:
        """Vectors (n, dims) of hashes, or of rows from `locate`, in the order given; a copy.

        Raises VectorsMissing where a hash is unknown or a row is negative, VectorsDamaged where a file is short.
        """
        rows = wanted if isinstance(wanted, np.ndarray) else self.locate(wanted)
        if len(missing := np.flatnonzero(rows < 0)):
            example = int(missing[0]) if isinstance(wanted, np.ndarray) else wanted[int(missing[0])]
            raise VectorsMissing(missing=len(missing), asked=len(rows), digest=self.digest[:12], example=example)
        out = np.empty((len(rows), self.dims), self.dtype)
        numbers = rows // SEGMENT_ROWS
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            offsets = rows[here] - number * SEGMENT_ROWS
            out[here] = self._map(int(number), int(offsets.max()) + 1)[offsets]
        return out

    def segments(self) -> Iterator[Segment]:
        """All committed rows as read-only memory maps, in row order, for passes over the whole pool."""
        end, retired = self.index.end(), self.index.retired()
        for first in range(0, end, SEGMENT_ROWS):
            if first // SEGMENT_ROWS in retired:
                continue
            rows = min(SEGMENT_ROWS, end - first)
            yield Segment(first, self._map(first // SEGMENT_ROWS, rows)[:rows])

    @contextmanager
    def held(self, how: int = fcntl.LOCK_SH) -> Iterator[None]:
        """While a scan finds contents here and has not told the catalogue yet, nothing may be cleaned away.

        Raises VectorsInUse where `how` does not wait and somebody else holds it.
        """
        with self.index.path.with_name("scan.lock").open("w") as file:
            try:
                fcntl.flock(file, how)
            except BlockingIOError:
                raise VectorsInUse(digest=self.digest[:12]) from None
            yield

    def size_bytes(self) -> int:
        """What the segments take on the disk."""
        return sum(path.stat().st_size for path in self.path.glob("*.vectors"))

    def verify(self, *, mend: bool = False) -> Verification:
        """Read every committed block back and compare checksums; with `mend`, forget the damaged blocks' vectors."""
        damaged: list[Block] = []
        rows = 0
        for block in self.index.blocks():
            rows += block.rows
            if not self.is_intact(block):
                damaged.append(block)
        if mend and damaged:
            with self.index.write() as write:
                write.forget(damaged)
        return Verification(rows, tuple(damaged))

    def close(self) -> None:
        """Close the index; the store is not used again."""
        self._index.close()
        self._maps.clear()

    def reap(self) -> None:
        """Delete the files of segments that were emptied `GRACE_S` ago."""
        for number, at in self.index.retired().items():
            if time.time() - at > GRACE_S:
                self._segment(number).unlink(missing_ok=True)

    def _segment(self, number: int) -> Path:
        return self.path / f"{number:06d}.vectors"

    def _header(self) -> bytes:
        facts = {"format": 1, "dtype": self.dtype.str, "shape": [SEGMENT_ROWS, self.dims], "digest": self.digest}
        return (b"NEXTBATCH-VECTORS\n" + json.dumps(facts).encode()).ljust(HEADER_BYTES, b"\n")

    def append(
        self, first: int, keys: Sequence[str], rows: NDArray[np.generic], commit: Callable[[Block, Sequence[str]], None]
    ) -> None:
        """Rows to the disk, for good, from row `first` on, and then to the index; the caller is in `index.write()`."""
        for start, stop in _spans(first, len(keys)):
            block = np.ascontiguousarray(rows[start - first : stop - first])
            self._write(start, block)
            commit(Block(start, stop - start, zlib.crc32(block.view(np.uint8).data)), keys[start - first :])

    def _write(self, first: int, block: NDArray[np.generic]) -> None:
        path = self._segment(first // SEGMENT_ROWS)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.pread(descriptor, HEADER_BYTES, 0) != self._header():
                if first % SEGMENT_ROWS:
                    raise VectorStoreMismatch(path=path, found="another header", expected=self.digest)
                _write(descriptor, self._header(), 0)
            offset = HEADER_BYTES + first % SEGMENT_ROWS * self.dims * self.dtype.itemsize
            _write(descriptor, block.view(np.uint8).data.cast("B"), offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(self.path)

    def _map(self, number: int, rows: int) -> NDArray[np.generic]:
        """Read-only map of at least `rows` rows of a segment, kept for the next call."""
        with self._maps_lock:
            known = self._maps.get(number)
            if known is not None and len(known) >= rows:
                return known
            path = self._segment(number)
            try:
                with path.open("rb") as file:
                    header, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                raise VectorsDamaged(path=path, problem="the file is gone") from None
            if header != self._header():
                raise VectorsDamaged(path=path, problem="its header is missing or another encoder's")
            there = min((size - HEADER_BYTES) // (self.dims * self.dtype.itemsize), SEGMENT_ROWS)
            if there < rows:
                raise VectorsDamaged(path=path, problem=f"{rows} rows are committed, {there} are there")
            mapped = np.memmap(path, self.dtype, "r", HEADER_BYTES, (there, self.dims))
            for other in [other for other in self._maps if not self._segment(other).exists()]:
                del self._maps[other]  # its disk space is free once nobody maps it
            self._maps[number] = mapped
            return mapped

    def is_intact(self, block: Block) -> bool:
        """Whether the block's bytes are those that were written."""
        number, offset = divmod(block.first, SEGMENT_ROWS)
        try:
            rows = self._map(number, offset + block.rows)[offset : offset + block.rows]
        except VectorsDamaged:
            return False
        crc = 0
        for start in range(0, block.rows, READ_ROWS):
            piece = np.ascontiguousarray(rows[start : start + READ_ROWS])
            crc = zlib.crc32(piece.view(np.uint8).data, crc)
        return crc == block.crc


def storable(rows: NDArray[np.floating], shape: tuple[int, int], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Rows in the store's type. Raises BadVectors for another shape, and for values that are not finite in it."""
    if rows.shape != shape:
        raise BadVectors(problem=f"shape {rows.shape}, not {shape}")
    with np.errstate(over="ignore"):
        values = np.asarray(rows).astype(dtype)
    if not np.isfinite(values).all():
        raise BadVectors(problem=f"values that are not finite in {dtype}")
    return values


def _spans(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut rows first … first + count where segments end."""
    stop = first + count
    cuts = [first, *range((first // SEGMENT_ROWS + 1) * SEGMENT_ROWS, stop, SEGMENT_ROWS), stop]
    yield from itertools.pairwise(cuts)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

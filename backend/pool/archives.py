"""Archives unpacked with care: plain files and folders only, inside their folder, within limits, checked as written."""

import errno
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from backend.errors import ArchiveTooLarge, ArchiveUnsafe, DatasetUnreadable

SUFFIXES = (".tar.xz", ".tar.gz", ".tgz", ".zip")
_CHUNK = 2**20
_XZ_MEMORY = 256 * 2**20  # bytes; `xz -9` needs 65 MB, a hostile header asks for 4 GB
_HEADER_BYTES = 2**20  # a tar's long names and pax records are read into memory whole

_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError),
    *(struct.error, ValueError, OverflowError, IndexError),  # zipfile lets these out
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to; below `ratio_from_bytes` the ratio does not count."""

    files: int = 2_000_000
    file_bytes: int = 256 * 2**20
    total_bytes: int = 64 * 2**30
    ratio: float = 200.0
    ratio_from_bytes: int = 256 * 2**20


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack into `target`, a new folder that nobody else writes to. Owners, modes and times are not taken over.

    Raises ArchiveUnsafe (paths that lead out, links, devices, one path twice), ArchiveTooLarge, and DatasetUnreadable
    (damaged, encrypted, no archive). What was written until then stays in `target` and is the caller's to remove.
    """
    writer = _Writer(archive, target, limits or Limits())
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, writer)
        else:
            _unpack_tar(archive, writer)
    except _DAMAGE as error:
        raise DatasetUnreadable(path=archive, problem=f"damaged ({str(error)[:100]})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # zipfile seeks to where a damaged directory points; a full disk is no damage
            raise
        raise DatasetUnreadable(path=archive, problem="damaged (it points outside of itself)") from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile's: other compressions; encrypted
        raise DatasetUnreadable(path=archive, problem=str(error)[:100]) from error


class _Writer:
    """Writes checked members below a folder, and counts what is written, whatever the archive claimed."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self._archive = archive
        self._target = target
        self._limits = limits
        self._files = 0
        self._bytes = 0
        ratio_bytes = max(limits.ratio_from_bytes, int(limits.ratio * archive.stat().st_size))
        self._total_bytes = min(limits.total_bytes, ratio_bytes)

    def unsafe(self, name: str, problem: str) -> ArchiveUnsafe:
        return ArchiveUnsafe(path=self._archive, problem=f"{name[:80]!r} {problem}")

    def folder(self, name: str) -> Path:
        """Make the folder; raises ArchiveUnsafe for a name that leads anywhere else."""
        self._count()
        path = self._inside(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise self.unsafe(name, "is both a file and a folder") from None
        return path

    def file(self, name: str, source: _Reader, size: int) -> None:
        """Copy exactly `size` bytes into a new file; raises ArchiveTooLarge and ArchiveUnsafe."""
        self._count()
        path = self._inside(name)
        self._check_bytes(size)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while chunk := source.read(_CHUNK):
                    self._bytes += len(chunk)
                    self._check_bytes(0)
                    file.write(chunk)
                    size -= len(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise self.unsafe(name, "is in it twice") from None
        if size != 0:
            raise self.unsafe(name, "is not as long as the archive says")

    def _count(self) -> None:
        self._files += 1
        if self._files > self._limits.files:
            raise ArchiveTooLarge(path=self._archive, limit=f"{self._limits.files} files")

    def _check_bytes(self, coming: int) -> None:
        if coming > self._limits.file_bytes:
            raise ArchiveTooLarge(path=self._archive, limit=f"{self._limits.file_bytes} bytes in one file")
        if self._bytes + coming > self._total_bytes:
            raise ArchiveTooLarge(path=self._archive, limit=f"{self._total_bytes} bytes")

    def _inside(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not name.strip("/") or "\0" in name or "\\" in name or re.match(r"/|[A-Za-z]:", name) or ".." in parts:
            raise self.unsafe(name, "leads out of the folder")
        if len(parts) > 32 or len(name) > 1024 or any(len(os.fsencode(part)) > 255 for part in parts):
            raise self.unsafe(name, "is nested too deep or too long")
        return self._target.joinpath(*parts)


def _unpack_tar(archive: Path, writer: _Writer) -> None:
    with archive.open("rb") as file, _decompressed(archive, file) as plain:
        bounded = _BoundedStream(plain, writer)
        bounded.allow(_HEADER_BYTES)
        with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|", errorlevel=2) as tar:
            while (member := _next(tar, bounded)) is not None:
                if member.name in ("", ".", "./"):
                    continue
                if member.isdir():
                    writer.folder(member.name)
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                    raise writer.unsafe(member.name, "is neither a plain file nor a folder")
                bounded.allow(member.size + _HEADER_BYTES)
                source = tar.extractfile(member)
                assert source is not None, "extractfile gives a reader for a plain file"
                writer.file(member.name, source, member.size)


def _next(tar: tarfile.TarFile, bounded: "_BoundedStream") -> tarfile.TarInfo | None:
    bounded.allow(_HEADER_BYTES)
    member = tar.next()
    tar.members = []  # type: ignore[attr-defined] # not in typeshed; else it keeps 1 kB for every member seen
    return member


class _BoundedStream:
    """Stops a tar whose headers want to be read into memory: what is not a file's content must be short."""

    def __init__(self, stream: _Reader, writer: _Writer) -> None:
        self._stream = stream
        self._writer = writer
        self._rest = 0

    def allow(self, size: int) -> None:
        self._rest = size

    def read(self, size: int = -1, /) -> bytes:
        if self._rest <= 0:
            raise self._writer.unsafe("a header", f"of more than {_HEADER_BYTES} bytes is in it")
        data = self._stream.read(size)
        self._rest -= len(data)
        return data


@contextmanager
def _decompressed(archive: Path, file: IO[bytes]) -> Iterator[_Reader]:
    if archive.name.lower().endswith(".xz"):
        yield _XzReader(file)
        return
    with gzip.GzipFile(fileobj=file, mode="rb") as plain:
        yield plain


class _XzReader:
    """lzma.LZMAFile with a limit on memory, which it lacks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._decoder.eof:  # parallel compressors write streams one after the other
                rest = self._decoder.unused_data.lstrip(b"\0")
                while not rest:
                    if not (padded := self._file.read(_CHUNK)):
                        return b""
                    rest = padded.lstrip(b"\0")
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            else:
                rest = self._file.read(_CHUNK) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not rest:
                    raise EOFError("it ends in the middle")
            if data := self._decoder.decompress(rest, max_length=size):
                return data


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.unsafe(member.filename, "is neither a plain file nor a folder")
            if member.is_dir():
                writer.folder(member.filename)
                continue
            with opened.open(member) as source:
                writer.file(member.filename, source, member.file_size)

"""Local files, only below one root: links may point within it, never out of it."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backend.errors import FetchFailed, ItemMissing, ItemTooLarge, PathForbidden


@dataclass(frozen=True)
class Blob:
    """Bytes as their source holds them, with its entity tag where it gives one."""

    data: bytes
    etag: str | None = None


class Unchanged(Exception):
    """The source still holds what has the entity tag that it was asked with."""


def read_below(root: Path, path: str, max_bytes: int) -> Blob:
    """Read a regular file whose path, absolute or relative to the root, lies below it once links are resolved.

    Raises PathForbidden (outside, no plain file), ItemMissing, ItemTooLarge, FetchFailed. Blocks: call it in a thread.
    """
    with open_below(root, path) as file:
        return _read(file.fileno(), _short(path), max_bytes)


def open_below(root: Path, path: str) -> BinaryIO:
    """Open such a file; raises as `read_below` does."""
    shown = _short(path)
    try:
        real_root = os.path.realpath(root, strict=True)
        relative = os.path.relpath(os.path.realpath(Path(real_root, path), strict=True), real_root)
    except (FileNotFoundError, NotADirectoryError):
        raise ItemMissing(uri=shown) from None
    except (OSError, ValueError) as error:
        raise PathForbidden(path=shown, problem=_reason(error)) from None
    if relative == ".." or relative.startswith("../"):
        raise PathForbidden(path=shown, problem="it lies outside the data root")
    try:
        descriptor = _open_without_links(real_root, relative)
    except FileNotFoundError:
        raise ItemMissing(uri=shown) from None
    except OSError as error:
        raise PathForbidden(path=shown, problem=_reason(error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PathForbidden(path=shown, problem="it is no plain file")
    return os.fdopen(descriptor, "rb")


def _read(descriptor: int, shown: str, max_bytes: int) -> Blob:
    status = os.fstat(descriptor)
    if status.st_size > max_bytes:
        raise ItemTooLarge(uri=shown, limit_bytes=max_bytes)
    chunks: list[bytes] = []
    rest = max_bytes + 1  # it may grow while it is read
    try:
        while rest > 0 and (chunk := os.read(descriptor, min(rest, 2**20))):
            chunks.append(chunk)
            rest -= len(chunk)
    except OSError as error:
        raise FetchFailed(uri=shown, problem=_reason(error)) from None
    if rest <= 0:
        raise ItemTooLarge(uri=shown, limit_bytes=max_bytes)
    return Blob(b"".join(chunks), f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _open_without_links(root: str, relative: str) -> int:
    """Open folder by folder and follow no link: the path is resolved, so a link met now was put there since."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *parents, name = relative.split("/")
        for parent in parents:
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        # Without O_NONBLOCK a named pipe would hold the thread for ever.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return "links go in a circle" if error.errno == errno.ELOOP else os.strerror(error.errno).lower()
    return "it is no path"


def _short(path: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in path)
    return printable if len(printable) <= 100 else f"…{printable[-99:]}"

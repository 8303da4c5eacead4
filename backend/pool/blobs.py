"""Fetched bytes kept on disk, at most so many: what its source says is unchanged need not travel again.

Contents are files named by their sha256, so that one picture at many addresses is kept once; an address is a small file
with the entity tag and the content's name. Every use renews a file's time, and the oldest go first. Files are renamed
into place whole, and a content is checked when it is read: a crash or a full disk costs a fetch, never a wrong picture.
"""

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import structlog

from backend.artefacts import whole
from backend.pool.files import Blob

_BLOCK = 4096  # what a small file takes on disk
_FULL, _ROOM = 0.9, 0.8  # shares of the limit: above the first, the oldest go until the second
_UNSEEN = 0.05  # share of the limit that is written between two looks at the folder

_log = structlog.get_logger(__name__)


class BlobCache:
    """A folder of at most `max_bytes`, for many threads and two processes that write at once. Methods block."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._unseen = max_bytes  # bytes written since the folder was looked at
        self._lock = threading.Lock()

    def find(self, uri: str) -> Blob | None:
        """What was last fetched from the address, if it is kept."""
        named = self._address(uri)
        try:
            etag, content_hash = named.read_text().split("\n")
            bytes.fromhex(content_hash)
            content = self._content(content_hash)
            data = content.read_bytes()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(data).hexdigest() != content_hash:
            content.unlink(missing_ok=True)
            return None
        for path in (named, content):
            with contextlib.suppress(OSError):
                os.utime(path)
        return Blob(data, etag)

    def keep(self, uri: str, blob: Blob) -> None:
        """Keep what was fetched, if its source can say whether it changed. A disk that does not take it is no error."""
        if not blob.etag or blob.etag.startswith("W/") or "\n" in blob.etag:  # weak tags let bytes differ
            return
        size = _taken(len(blob.data)) + _BLOCK
        if size > _UNSEEN * self._max_bytes:
            return
        content_hash = hashlib.sha256(blob.data).hexdigest()
        try:
            self._make_room(size)
            self._write(self._content(content_hash), blob.data)
            self._write(self._address(uri), f"{blob.etag}\n{content_hash}".encode())
        except OSError as error:
            _log.warning("blobs.not_kept", problem=os.strerror(error.errno or 0))

    def _address(self, uri: str) -> Path:
        return self._place("addresses", hashlib.sha256(uri.encode(errors="surrogatepass")).hexdigest())

    def _content(self, content_hash: str) -> Path:
        return self._place("contents", content_hash)

    def _place(self, kind: str, name: str) -> Path:
        return self._folder / kind / name[:2] / name

    def _write(self, path: Path, data: bytes) -> None:
        with whole(path, 0o600, is_durable=False) as file:
            file.write(data)

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._unseen += size
            if self._unseen <= _UNSEEN * self._max_bytes:
                return
            files = [
                (status.st_mtime_ns, _taken(status.st_size), path)
                for path in self._folder.rglob("*")
                if (status := _status(path)) is not None
            ]
            taken = sum(size for _, size, _ in files)
            if taken > _FULL * self._max_bytes:
                for _, freed, path in sorted(files):
                    path.unlink(missing_ok=True)
                    taken -= freed
                    if taken <= _ROOM * self._max_bytes:
                        break
            self._unseen = size


def _taken(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _status(path: Path) -> os.stat_result | None:
    """Of a file; None for a folder and for what another process just removed."""
    try:
        return None if path.is_dir() else path.stat()
    except OSError:
        return None

"""What a pool's source names, as one stream of items. Nothing of an item is read; what is left out is counted."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

from backend.errors import FolderOutsideRoot, MissingSetting, PoolUnreadable
from backend.pool.catalog import NewItem
from backend.pool.folders import SUFFIXES
from backend.pool.ftp import Entry
from backend.pool.manifest import read_manifest
from backend.pool.skipped import Skipped
from backend.pool.sources import SourceConfig, Sources, open_buckets
from backend.settings import Kind, PoolSection

LOCAL_FILES = "/data/local-files/?d="
_FTP_DEPTH = 32  # a server may say that every folder holds another


class Listing:
    """The items of a pool, to be iterated once; `skipped` is complete when they are through.

    Each item's `validator` changes whenever its bytes may have; it is empty where the source does not tell.
    Iterating raises a NextbatchError where the source cannot be listed to its end.
    """

    def __init__(self, items: Callable[[Skipped], Iterator[NewItem]]) -> None:
        self.skipped = Skipped()
        self._items = items

    def __iter__(self) -> Iterator[NewItem]:
        return self._items(self.skipped)


def list_pool(pool: PoolSection, config: SourceConfig, kind: Kind = "image") -> Listing | None:
    """What the pool's source holds now; None where items come by themselves: as Label Studio's tasks, or pushed."""
    if pool.source in ("tasks", "api"):
        return None
    if pool.path is None:
        raise MissingSetting(name="pool.path", mend=f"Say where the pool is: source {pool.source} needs it.")
    path = pool.path
    match pool.source:
        case "folder":
            return Listing(lambda skipped: _in_folder(Path(path), config.data_root, kind, skipped))
        case "s3":
            return Listing(lambda skipped: _in_bucket(path, config, kind, skipped))
        case "ftp":
            return Listing(lambda skipped: _on_ftp(path, config, kind, skipped))
        case _:
            return Listing(lambda skipped: read_manifest(path, pool.uri_field, config, skipped))


def local_uri(path: Path, root: Path | None) -> str:
    """The address of a file that both Label Studio's page and our sources understand. Raises FolderOutsideRoot."""
    if root is None:
        raise MissingSetting(
            name="NEXTBATCH_DATA_ROOT", mend="Set it to a folder above the pool; nothing else is read."
        )
    try:
        relative = path.resolve().relative_to(root.resolve())
    except ValueError:
        raise FolderOutsideRoot(path=path, root=root) from None
    return f"{LOCAL_FILES}{quote(os.fsencode(relative))}"


def is_named(name: str, kind: Kind) -> bool:
    """Whether the suffix is one of the formats that are read."""
    return os.path.splitext(name)[1].lower() in SUFFIXES[kind]  # noqa: PTH122 - of a million names


def _misnamed(kind: Kind) -> str:
    return "not named as an image" if kind == "image" else "not named .txt"


def _in_folder(folder: Path, root: Path | None, kind: Kind, skipped: Skipped) -> Iterator[NewItem]:
    """Files below the folder, by name. Links to files are followed within the root, links to folders are not."""
    base = local_uri(folder / "x", root)[:-1]
    assert root is not None, "local_uri has checked it"
    rest = [(str(folder.resolve()), base)]
    while rest:
        path, base = rest.pop()
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise PoolUnreadable(path=path, problem=os.strerror(error.errno or 0).lower()) from None
        below = []
        for entry in entries:
            uri = f"{base}{quote(os.fsencode(entry.name))}"
            if entry.is_dir(follow_symlinks=False):
                below.append((entry.path, f"{uri}/"))
            elif (item := _file(entry, uri, root, kind, skipped)) is not None:
                yield item
        rest.extend(reversed(below))


def _file(entry: "os.DirEntry[str]", uri: str, root: Path, kind: Kind, skipped: Skipped) -> NewItem | None:
    if not is_named(entry.name, kind):
        skipped.add(_misnamed(kind), entry.path)
        return None
    try:
        status = entry.stat()
        if entry.is_symlink():
            uri = local_uri(Path(entry.path), root)
        if not entry.is_file():
            skipped.add("no plain file", entry.path)
            return None
    except FolderOutsideRoot:
        skipped.add("a link that leads out of NEXTBATCH_DATA_ROOT", entry.path)
        return None
    except OSError:
        skipped.add("a link that leads nowhere", entry.path)
        return None
    if status.st_size == 0:
        skipped.add("empty", entry.path)
        return None
    return NewItem(uri, validator=f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _in_bucket(prefix: str, config: SourceConfig, kind: Kind, skipped: Skipped) -> Iterator[NewItem]:
    """Objects below an s3:// prefix, in the store's order."""
    for found in open_buckets(config).list_prefix(prefix):
        if found.uri.endswith("/"):
            skipped.add("a folder", found.uri)
        elif not found.is_readable:
            skipped.add("a key with an empty, . or .. part or a control character, which cannot be read", found.uri)
        elif found.size_bytes == 0:
            skipped.add("empty", found.uri)
        elif not is_named(found.uri, kind):
            skipped.add(_misnamed(kind), found.uri)
        else:
            yield NewItem(found.uri, validator=found.validator)


def _on_ftp(folder: str, config: SourceConfig, kind: Kind, skipped: Skipped) -> Iterator[NewItem]:
    """Files below an ftp:// folder, a folder at a time. Links are not followed."""
    closing = AsyncExitStack()
    with asyncio.Runner() as runner:
        sources = runner.run(closing.enter_async_context(Sources(config)))
        try:
            rest = [(folder.rstrip("/"), 0)]
            while rest:
                uri, depth = rest.pop()
                for entry in runner.run(sources.list_ftp_folder(uri)):
                    if entry.kind == "dir" and depth < _FTP_DEPTH:
                        rest.append((entry.uri, depth + 1))
                    elif (reason := _why_not(entry, kind)) is not None:
                        skipped.add(reason, entry.uri)
                    else:
                        yield NewItem(entry.uri, validator=entry.validator)
        finally:
            runner.run(closing.aclose())


def _why_not(entry: Entry, kind: Kind) -> str | None:
    match entry.kind:
        case "file" if not is_named(entry.uri, kind):
            return _misnamed(kind)
        case "file":
            return "empty" if entry.size_bytes == 0 else None
        case "dir":
            return f"a folder below {_FTP_DEPTH} others"
        case None:
            return "a line of the server's list that nobody understands"
        case _:
            return "no plain file"

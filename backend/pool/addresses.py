"""Whether an address could ever be read, by its text alone: what is pushed is looked at before it is kept.

Whatever passes is checked again where it is dialled or opened: only there a name's addresses and a file's links are
known.
"""

import os
from collections.abc import Callable
from pathlib import Path

from yarl import URL

from backend.errors import PathForbidden, SourceUnsupported
from backend.pool import ftp
from backend.pool.guard import Guard
from backend.pool.http import shown
from backend.pool.origin import LabelStudioOrigin
from backend.pool.sources import SourceConfig, local_path, open_buckets, path_of_file_uri

MAX_CHARACTERS = 65_536


def checker(config: SourceConfig) -> Callable[[str], None]:
    """A check of addresses for a project that may read this. It raises an ItemUnreadable that says why not."""
    guard, buckets = Guard(config.allow_hosts), open_buckets(config)
    studio = LabelStudioOrigin(config.label_studio_url) if config.label_studio_url else None

    def check(uri: str) -> None:
        if not uri or len(uri) > MAX_CHARACTERS:
            raise SourceUnsupported(uri=shown(uri), problem=f"an address has 1 to {MAX_CHARACTERS} characters")
        scheme, separator, rest = uri.partition("://")
        match scheme.lower() if separator else "":
            case "http" | "https":
                url = _url(uri)
                if studio is None or not studio.owns(url):
                    guard.check_url(url)
            case "ftp":
                url, _ = ftp.parse(uri)
                guard.check_url(URL.build(scheme="http", host=url.host or "", port=url.port or 21))
            case "s3":
                buckets.allowed(f"s3://{rest}")
            case "file":
                _check_path(path_of_file_uri(uri), config.data_root)
            case "":
                if (path := local_path(uri, config)) is not None:
                    _check_path(path, config.data_root)
            case _:
                raise SourceUnsupported(uri=shown(uri), problem=f"{scheme[:20]} addresses are not supported")

    return check


def _url(uri: str) -> URL:
    try:
        url = URL(uri)
        url.port  # noqa: B018 yarl reads the port lazily, and raises then
    except ValueError:
        raise SourceUnsupported(uri=shown(uri), problem="not a valid address") from None
    return url


def _check_path(path: str, root: Path | None) -> None:
    if root is None:
        raise PathForbidden(path=shown(path), problem="NEXTBATCH_DATA_ROOT is not set")
    if "\0" in path or not Path(os.path.normpath(Path(root, path))).is_relative_to(root):
        raise PathForbidden(path=shown(path), problem="it lies outside the data root")

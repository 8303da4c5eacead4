"""Where items' bytes come from. Every failure is an ItemUnreadable whose message can be recorded as the item's reason.

| address | read from |
|---|---|
| http://, https:// | the public internet and `allow_hosts` |
| ftp:// | the public internet and `allow_hosts` |
| s3://bucket/key | `allow_buckets` |
| file:///…, /…, relative paths | below `data_root` |
| /data/local-files/?d=… | below `data_root`; without one, Label Studio |
| /data/upload/…, /storage-data/…, Label Studio's own addresses | Label Studio, with its token |
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp.abc import AbstractResolver

from backend.errors import FetchTimedOut, ItemMissing, PathForbidden, SourceUnsupported
from backend.pool.blobs import BlobCache
from backend.pool.files import Blob, Unchanged, read_below
from backend.pool.ftp import Entry, FtpClient, Login
from backend.pool.guard import Guard
from backend.pool.http import HttpClient, shown
from backend.pool.origin import LabelStudioOrigin, TokenProvider
from backend.pool.s3 import Buckets
from backend.settings import settings

__all__ = ["Blob", "SourceConfig", "Sources", "open_buckets"]

_LOCAL_FILES = "/data/local-files/"
_LIST_TIMEOUT_S = 300.0
_UPLOADS = ("/data/upload/", "/storage-data/")


@dataclass(frozen=True)
class SourceConfig:
    """What a project may read, and how much of it. Sizes in bytes, times in seconds."""

    data_root: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_buckets: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    label_studio_url: str | None = None
    label_studio_token: TokenProvider | None = field(default=None, repr=False)
    max_bytes: int = 32 * 2**20
    timeout_s: float = 30.0
    retries: int = 3
    connections: int = 64


def open_buckets(config: SourceConfig) -> Buckets:
    """S3 as the project may read it; a store is opened when it is first asked for."""
    return Buckets(
        config.allow_buckets,
        endpoint=config.s3_endpoint,
        region=config.s3_region,
        max_bytes=config.max_bytes,
        timeout_s=config.timeout_s,
        retries=config.retries,
    )


class Sources:
    """One client for all addresses, for one event loop: `async with Sources(config) as sources`."""

    def __init__(self, config: SourceConfig, resolver: AbstractResolver | None = None) -> None:
        self._config = config
        self._resolver = resolver
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        config = self._config
        url = config.label_studio_url
        self._label_studio = LabelStudioOrigin(url, config.label_studio_token) if url else None
        self._http = await self._closing.enter_async_context(
            HttpClient(
                Guard(config.allow_hosts),
                self._label_studio,
                max_bytes=config.max_bytes,
                timeout_s=config.timeout_s,
                retries=config.retries,
                connections=config.connections,
                resolver=self._resolver,
            )
        )
        self._ftp = await self._closing.enter_async_context(
            FtpClient(
                Guard(config.allow_hosts),
                _ftp_login(),
                max_bytes=config.max_bytes,
                retries=config.retries,
                resolver=self._resolver,
            )
        )
        self._buckets = open_buckets(config)
        limit = int(settings().blob_cache_gib * 2**30)
        self._cache = _blob_cache(settings().cache / "blobs", limit) if limit else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def fetch(self, uri: str) -> Blob:
        """The item's bytes, at most `max_bytes`, within `timeout_s` over all retries. Raises an ItemUnreadable."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self.read(uri)
        except TimeoutError:
            raise FetchTimedOut(uri=shown(uri), timeout_s=f"{self._config.timeout_s:g}") from None

    async def list_ftp_folder(self, uri: str) -> list[Entry]:
        """What an ftp:// folder holds. Raises an ItemUnreadable."""
        try:
            async with asyncio.timeout(_LIST_TIMEOUT_S):
                return await self._ftp.list_folder(uri)
        except TimeoutError:
            raise FetchTimedOut(uri=shown(uri), timeout_s=f"{_LIST_TIMEOUT_S:g}") from None

    async def read(self, uri: str) -> Blob:
        """As `fetch`, for as long as it takes: what is kept, if its source says that it did not change."""
        if self._cache is None or not _has_etags(uri):
            return await self._read(uri)
        kept = await asyncio.to_thread(self._cache.find, uri)
        if kept is not None and len(kept.data) <= self._config.max_bytes:
            try:
                fresh = await self._read(uri, kept.etag)
            except Unchanged:
                return kept
        else:
            fresh = await self._read(uri)
        await asyncio.to_thread(self._cache.keep, uri, fresh)
        return fresh

    async def _read(self, uri: str, etag: str | None = None) -> Blob:
        scheme, separator, rest = uri.partition("://")
        match scheme.lower() if separator else "":
            case "http" | "https":
                return await self._http.get(uri, etag)
            case "ftp":
                return await self._ftp.get(uri)
            case "s3":
                get = self._buckets.read if self._cache is None else partial(self._buckets.get, etag=etag)
                return await get(f"s3://{rest}")
            case "file":
                return await self._local(path_of_file_uri(uri))
            case "":
                return await self._read_path(uri, etag)
        raise SourceUnsupported(uri=shown(uri), problem=f"{scheme[:20]} addresses are not supported")

    async def _read_path(self, path: str, etag: str | None) -> Blob:
        local = local_path(path, self._config)
        if local is not None:
            return await self._local(local)
        assert self._label_studio is not None, "local_path has checked it"
        return await self._http.get(self._label_studio.address_of(path), etag)

    async def _local(self, path: str) -> Blob:
        if self._config.data_root is None:
            raise PathForbidden(path=shown(path), problem="NEXTBATCH_DATA_ROOT is not set")
        return await asyncio.to_thread(read_below, self._config.data_root, path, self._config.max_bytes)


@lru_cache(maxsize=4)
def _blob_cache(folder: Path, max_bytes: int) -> BlobCache:
    return BlobCache(folder, max_bytes)


def _has_etags(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://", "s3://", *_UPLOADS))


def _ftp_login() -> Login | None:
    process = settings()
    if process.ftp_username is None:
        return None
    return Login(process.ftp_username, process.ftp_password.get_secret_value() if process.ftp_password else "")


def local_path(address: str, config: SourceConfig) -> str | None:
    """The file that an address without a scheme names; None for what Label Studio serves. Raises an ItemUnreadable."""
    if address[:5].lower() == "data:":
        raise SourceUnsupported(uri=shown(address), problem="data: addresses are not supported")
    is_local, has_studio = address.startswith(_LOCAL_FILES), config.label_studio_url is not None
    if address.startswith(_UPLOADS) or (is_local and config.data_root is None and has_studio):
        if not has_studio:
            problem = "it is Label Studio's, and LABEL_STUDIO_URL is not set"
            raise SourceUnsupported(uri=shown(address), problem=problem)
        return None
    if not is_local:
        return address
    named = parse_qs(urlsplit(address).query).get("d")
    if not named:
        raise ItemMissing(uri=shown(address))
    return named[0]


def path_of_file_uri(uri: str) -> str:
    """The path in a file:// address. Raises SourceUnsupported."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise SourceUnsupported(uri=shown(uri), problem="not a valid address") from None
    if parts.netloc not in ("", "localhost"):
        raise SourceUnsupported(uri=shown(uri), problem="file addresses name no host")
    return unquote(parts.path)

"""S3 and what speaks its protocol, through obstore: only buckets and prefixes that the project lists."""

import asyncio
import re
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import obstore
from obstore.exceptions import (
    BaseError,
    GenericError,
    InvalidPathError,
    NotFoundError,
    NotModifiedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from backend.errors import AccessRefused, BucketForbidden, FetchFailed, ItemMissing, ItemTooLarge, SourceUnsupported
from backend.pool.files import Blob, Unchanged

if TYPE_CHECKING:
    from boto3 import Session
    from obstore import GetOptions
    from obstore.store import S3Config

_UNREADABLE = re.compile("/\\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
_REFUSAL = re.compile(r"status code: (\d{3})(?:.*?<Code>(\w{1,40})</Code>)?", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PAGES_AHEAD = 8  # of 1,000 keys

Page = TypeVar("Page")


class Listed(NamedTuple):
    """An object as a listing names it. The `validator` stays the same as long as its bytes do."""

    uri: str
    size_bytes: int
    validator: str

    @property
    def is_readable(self) -> bool:
        """Whether `Buckets.get` can ask for such a key: it has no empty, . or .. part, and no control character."""
        return _UNREADABLE.search(self.uri, len("s3://")) is None


class Buckets:
    """The allow-listed buckets. Credentials come from boto3's chain, once; without any, requests are anonymous."""

    def __init__(
        self,
        allow: Collection[str],
        *,
        endpoint: str | None,
        region: str,
        max_bytes: int,
        timeout_s: float,
        retries: int,
    ) -> None:
        self._allow = tuple(entry.removeprefix("s3://").strip("/") for entry in allow)
        self._endpoint = endpoint
        self._region = region
        self._max_bytes = max_bytes
        self._timeout = timedelta(seconds=timeout_s)
        self._retries = retries
        self._stores: dict[str, S3Store] = {}
        self._opening = asyncio.Lock()

    async def read(self, uri: str) -> Blob:
        """One object without its entity tag, which takes a quarter less of the CPU. Raises as `get` does.

        All that it may hold and a byte is asked for as one range: obstore gives that in one wait instead of two.
        """
        bucket, key = self.allowed(uri)
        if key:
            store = await self._store(bucket)
            try:
                data = await obstore.get_range_async(store, key, start=0, length=self._max_bytes + 1)
            except (NotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
                raise _translated(error, uri) from None
            except (BaseError, OSError, ValueError):
                pass  # an empty object has no range; whatever else it is, `get` says
            else:
                if len(data) > self._max_bytes:
                    raise ItemTooLarge(uri=uri[:100], limit_bytes=self._max_bytes)
                return Blob(bytes(data))
        return await self.get(uri)

    async def get(self, uri: str, etag: str | None = None) -> Blob:
        """Read one object; Unchanged if it still has that entity tag.

        Raises BucketForbidden, ItemMissing, AccessRefused, ItemTooLarge, FetchFailed.
        """
        bucket, key = self.allowed(uri)
        if not key:
            raise SourceUnsupported(uri=uri[:100], problem="it names a bucket, not an object")
        try:
            options: GetOptions = {"if_none_match": etag} if etag else {}
            result = await obstore.get_async(await self._store(bucket), key, options=options)
            if result.meta["size"] > self._max_bytes:
                raise ItemTooLarge(uri=uri[:100], limit_bytes=self._max_bytes)
            return Blob(bytes(await result.bytes_async()), result.meta["e_tag"])
        except NotModifiedError:
            raise Unchanged from None
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error, uri) from None

    def list_prefix(self, uri: str) -> Iterator[Listed]:
        """Every object below a prefix, in the store's order, page by page; blocks. Raises as `get` does.

        A prefix ends at a slash: `s3://bucket/cats` gives `cats/1.jpg`, not `cats-old/1.jpg`.
        """
        bucket, prefix = self.allowed(uri.rstrip("/"))
        last = ""
        try:
            for page in _ahead(obstore.list(self._open(bucket), prefix or None, chunk_size=1000)):
                for entry in page:
                    last = entry["path"]
                    yield _listed(bucket, last, entry["size"], entry["e_tag"], entry["last_modified"])
        except InvalidPathError:  # one odd key among a million ends obstore's listing: boto3 goes on, slower
            yield from self._list_any_key(uri, bucket, prefix, last)
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error, uri) from None

    def _list_any_key(self, uri: str, bucket: str, prefix: str, last: str) -> Iterator[Listed]:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        session, is_anonymous = self._session()
        timeout_s = self._timeout.total_seconds()
        config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"max_attempts": self._retries})
        if is_anonymous:
            config = config.merge(Config(signature_version=UNSIGNED))
        pages = session.client("s3", endpoint_url=self._endpoint, config=config).get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", StartAfter=last):
                for entry in page.get("Contents", ()):
                    yield _listed(bucket, entry["Key"], entry["Size"], entry.get("ETag"), entry["LastModified"])
        except (ClientError, BotoCoreError) as error:
            raise FetchFailed(uri=uri[:100], problem=f"the store cannot be listed ({error})"[:300]) from None

    def allowed(self, uri: str) -> tuple[str, str]:
        """Bucket and key of an address that the project may read, else BucketForbidden. The key is taken as it stands,
        not decoded."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        # Some stores treat . and .. as folders: such a key could leave the prefix that was checked.
        is_plain = _BUCKET.fullmatch(bucket) and not {".", ".."} & set(key.split("/")) and "\0" not in key
        target = f"{bucket}/{key}"
        if not is_plain or not any(target.rstrip("/") == a or target.startswith(f"{a}/") for a in self._allow):
            raise BucketForbidden(uri=uri[:100])
        return bucket, key

    async def _store(self, bucket: str) -> S3Store:
        async with self._opening:
            if bucket not in self._stores:
                self._stores[bucket] = await asyncio.to_thread(self._open, bucket)
            return self._stores[bucket]

    def _session(self) -> "tuple[Session, bool]":
        """boto3's session, and whether it has no credentials."""
        import boto3  # 0.2 s to import, which only those who use S3 should pay

        session = boto3.Session(region_name=self._region)
        return session, session.get_credentials() is None

    def _open(self, bucket: str) -> S3Store:
        from obstore.auth.boto3 import Boto3CredentialProvider

        session, is_anonymous = self._session()
        config: S3Config = {"region": self._region}
        if self._endpoint:
            config["endpoint"] = self._endpoint
        if is_anonymous:
            config["skip_signature"] = True
        return S3Store(
            bucket,
            config=config,
            credential_provider=None if is_anonymous else Boto3CredentialProvider(session),
            client_options={
                "allow_http": bool(self._endpoint and self._endpoint.startswith("http://")),
                "connect_timeout": min(self._timeout, timedelta(seconds=10)),
                "timeout": self._timeout,
            },
            retry_config={"max_retries": self._retries, "retry_timeout": self._timeout},
        )


def _ahead(pages: Iterator[Page]) -> Iterator[Page]:
    """The next pages are asked for while this one is looked at: a catalogue compares five at a time."""
    thread = ThreadPoolExecutor(1)
    try:
        coming = deque(thread.submit(next, pages, None) for _ in range(_PAGES_AHEAD))
        while (page := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, pages, None))
            yield page
    finally:
        thread.shutdown(cancel_futures=True)


def _listed(bucket: str, key: str, size_bytes: int, etag: str | None, modified: datetime) -> Listed:
    tag = (etag or "").strip('"') or f"{modified.timestamp():f}"
    return Listed(f"s3://{bucket}/{key}", size_bytes, f"{tag}-{size_bytes:x}")


def _translated(error: Exception, uri: str) -> Exception:
    match error:
        case NotFoundError() | FileNotFoundError():  # obstore raises either
            return ItemMissing(uri=uri[:100])
        case PermissionDeniedError() | UnauthenticatedError() | PermissionError():
            return AccessRefused(uri=uri[:100], problem="the store says no")
        case GenericError() if (refusal := _REFUSAL.search(str(error))) is not None:  # all that a listing raises
            status, code = refusal[1], refusal[2] or "no more"
            if status == "404":
                return ItemMissing(uri=uri[:100])
            if status in ("401", "403"):
                return AccessRefused(uri=uri[:100], problem=f"the store says {code}")
            return FetchFailed(uri=uri[:100], problem=f"the store says {status} {code}")
        case GenericError():
            return FetchFailed(uri=uri[:100], problem="the store does not answer as S3 does")
        case _:
            return FetchFailed(uri=uri[:100], problem=f"the store cannot be read ({type(error).__name__})")

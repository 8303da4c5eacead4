"""S3 and what speaks its protocol, through obstore: only buckets and prefixes that the project lists."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, GenericError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from backend.errors import AccessRefused, BucketForbidden, FetchFailed, ItemMissing, ItemTooLarge, SourceUnsupported
from backend.pool.files import Blob

if TYPE_CHECKING:
    from obstore.store import S3Config

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


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

    async def get(self, uri: str) -> Blob:
        """Read one object. Raises BucketForbidden, ItemMissing, AccessRefused, ItemTooLarge, FetchFailed."""
        bucket, key = self._allowed(uri)
        if not key:
            raise SourceUnsupported(uri=uri[:100], problem="it names a bucket, not an object")
        try:
            result = await obstore.get_async(await self._store(bucket), key)
            if result.meta["size"] > self._max_bytes:
                raise ItemTooLarge(uri=uri[:100], limit_bytes=self._max_bytes)
            return Blob(bytes(await result.bytes_async()), result.meta["e_tag"])
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error, uri) from None

    async def list_prefix(self, uri: str) -> AsyncIterator[str]:
        """Address of every object below a prefix, in the store's order; folder markers are left out.

        A prefix ends at a slash: `s3://bucket/cats` gives `cats/1.jpg`, not `cats-old/1.jpg`.
        """
        bucket, prefix = self._allowed(uri.rstrip("/"))
        try:
            async for page in obstore.list(await self._store(bucket), prefix or None, chunk_size=1000):
                for entry in page:
                    if entry["size"] > 0:
                        yield f"s3://{bucket}/{entry['path']}"
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error, uri) from None

    def _allowed(self, uri: str) -> tuple[str, str]:
        """Bucket and key of an address that the project may read. The key is taken as it stands, not decoded."""
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

    def _open(self, bucket: str) -> S3Store:
        import boto3  # 0.2 s to import, which only those who use S3 should pay
        from obstore.auth.boto3 import Boto3CredentialProvider

        session = boto3.Session(region_name=self._region)
        is_anonymous = session.get_credentials() is None
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


def _translated(error: Exception, uri: str) -> Exception:
    match error:
        case NotFoundError() | FileNotFoundError():  # obstore raises either
            return ItemMissing(uri=uri[:100])
        case PermissionDeniedError() | UnauthenticatedError() | PermissionError():
            return AccessRefused(uri=uri[:100], problem="the store says no")
        case GenericError():
            return FetchFailed(uri=uri[:100], problem="the store does not answer as S3 does")
        case _:
            return FetchFailed(uri=uri[:100], problem=f"the store cannot be read ({type(error).__name__})")

"""http and https: one client whose every address is checked, with a size limit, a deadline and few, spread retries."""

from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from backend.errors import (
    AccessRefused,
    FetchFailed,
    ItemMissing,
    ItemTooLarge,
    SourceUnsupported,
)
from backend.pool.files import Blob, Unchanged
from backend.pool.guard import Guard, GuardedResolver
from backend.pool.origin import LabelStudioOrigin
from backend.pool.retry import TryAgain, retried

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {"User-Agent": "nextbatch", "Accept-Encoding": "identity"}


class HttpClient:
    """GET only. Label Studio's origin has connections of its own, so no other host profits from its being trusted."""

    def __init__(
        self,
        guard: Guard,
        origin: LabelStudioOrigin | None,
        *,
        max_bytes: int,
        timeout_s: float,
        retries: int,
        connections: int,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._guard = guard
        self._origin = origin
        self._max_bytes = max_bytes
        self._retries = retries
        self._public = _session(GuardedResolver(guard, resolver), connections, timeout_s)
        self._own = _session(ThreadedResolver(), connections, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._public.close()
        await self._own.close()

    async def get(self, address: str, etag: str | None = None) -> Blob:
        """Read an address; Unchanged if what is there still has that entity tag.

        Raises an ItemUnreadable; the deadline over all of it is the caller's.
        """
        try:
            url = URL(address)
            url.port  # noqa: B018 yarl reads the port lazily, and raises then
        except ValueError:
            raise SourceUnsupported(uri=shown(address), problem="not a valid address") from None
        return await retried(lambda: self._follow(url, etag), self._retries, shown(url))

    async def _follow(self, url: URL, etag: str | None) -> Blob:
        """Follow redirects by hand: each hop is checked like the first, and credentials stay at the first."""
        start = shown(url)
        is_ours = self._is_ours(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._once(url, start, etag, with_token=is_ours)
            if isinstance(answer, Blob):
                return answer
            url = answer
            is_ours = is_ours and self._is_ours(url)
        raise FetchFailed(uri=start, problem=f"more than {MAX_REDIRECTS} redirects")

    def _is_ours(self, url: URL) -> bool:
        return self._origin is not None and self._origin.owns(url)

    async def _once(self, url: URL, start: str, etag: str | None, *, with_token: bool) -> Blob | URL:
        """One request: what the address holds, or where it points to."""
        try:
            if self._origin is None or not self._origin.owns(url):
                self._guard.check_url(url)
                return await self._request(self._public, url, None, start, etag)
            bare = url.with_user(None)
            header = await self._origin.authorization(bare, self._own) if with_token else None
            try:
                return await self._request(self._own, bare, header, start, etag)
            except AccessRefused:
                if header is None:
                    raise
                fresh = await self._origin.authorization(bare, self._own, rejected=header)
                if fresh == header:
                    raise
                return await self._request(self._own, bare, fresh, start, etag)
        except aiohttp.ClientConnectorCertificateError:
            raise FetchFailed(uri=start, problem="its certificate is not valid") from None
        except (aiohttp.InvalidURL, aiohttp.ClientResponseError, ValueError) as error:
            raise FetchFailed(uri=start, problem=f"it does not speak HTTP ({type(error).__name__})") from None
        except aiohttp.ClientConnectorError as error:
            raise TryAgain(f"no connection to {error.host[:60]}") from None
        except aiohttp.ClientError as error:
            raise TryAgain(f"the connection broke ({type(error).__name__})") from None

    async def _request(
        self, session: aiohttp.ClientSession, url: URL, authorization: str | None, start: str, etag: str | None
    ) -> Blob | URL:
        headers = {"Authorization": authorization} if authorization else {}
        if etag is not None:
            headers["If-None-Match"] = etag
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            status = response.status
            if status in _REDIRECTS and (location := response.headers.get("Location")):
                target = url.join(URL(location))
                return target.with_user(None) if target.host else target
            if status == 304 and etag is not None:
                raise Unchanged
            if status in _PASSING:
                raise TryAgain(f"HTTP {status}", _retry_after(response))
            if status in (401, 403):
                raise AccessRefused(uri=start, problem=f"HTTP {status}")
            if status in (404, 410):
                raise ItemMissing(uri=start)
            if status != 200:
                raise FetchFailed(uri=start, problem=f"HTTP {status}")
            return Blob(await self._body(response, start), response.headers.get("ETag"))

    async def _body(self, response: aiohttp.ClientResponse, start: str) -> bytes:
        if (response.content_length or 0) > self._max_bytes:
            raise ItemTooLarge(uri=start, limit_bytes=self._max_bytes)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise ItemTooLarge(uri=start, limit_bytes=self._max_bytes)
        return bytes(body)


def shown(address: str | URL) -> str:
    """The address as it may be recorded: no user, password or query (signatures are there), at most 100 characters."""
    try:
        plain = URL(address) if isinstance(address, str) else address
        text = str(plain.with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        text = str(address).partition("?")[0].rpartition("@")[2]
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= 100 else f"{printable[:60]}…{printable[-39:]}"


def _session(resolver: AbstractResolver, connections: int, timeout_s: float) -> aiohttp.ClientSession:
    # No DNS cache: every new connection is resolved, checked and dialled in one go.
    connector = aiohttp.TCPConnector(resolver=resolver, limit=connections, use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout_s / 3, 10.0)),  # leaves time for a retry
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # a proxy would dial addresses that nobody checked
    )


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds the server asks for, at most 5: the deadline is short, and the next round tries again anyway."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), 5.0) if value.isascii() and value.isdigit() else 0.0

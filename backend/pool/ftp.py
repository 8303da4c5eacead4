"""ftp: files and folders over few connections a host, which are kept. Passive mode, to the address that was checked.

Anonymous, but for hosts in `allow_hosts`: those get NEXTBATCH_FTP_USERNAME and NEXTBATCH_FTP_PASSWORD where they are
set. A path is relative to the folder that the login leads to; `ftp://host/%2Fdata` is absolute. There is no TLS.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import aioftp
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from backend.errors import AccessRefused, FetchFailed, ItemMissing, ItemTooLarge, SourceUnsupported
from backend.pool.files import Blob
from backend.pool.guard import Guard, GuardedResolver
from backend.pool.http import shown
from backend.pool.retry import TryAgain, retried

CONNECTIONS = 4  # a host; many servers refuse the sixth
_MOST_LINES = 2_000  # of the control connection, a request
_CONNECT_TIMEOUT_S = 10.0
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_BROKEN = (OSError, EOFError, ValueError, IndexError, OverflowError, asyncio.IncompleteReadError)

T = TypeVar("T")


@dataclass(frozen=True)
class Login:
    """What allow-listed hosts are told."""

    username: str
    password: str


@dataclass(frozen=True)
class Entry:
    """What a folder holds: `kind` is file, dir or something else; None where the line was not understood."""

    uri: str
    kind: str | None
    size_bytes: int | None = None
    modified: str = ""

    @property
    def validator(self) -> str:
        """Changes when size or time do: to the second with MLSD, to the minute or the day with LIST."""
        return f"{self.modified}-{self.size_bytes or 0:x}" if self.modified else ""


class FtpClient:
    """Reads files and folders. One event loop; close it with `async with`."""

    def __init__(
        self,
        guard: Guard,
        login: Login | None,
        *,
        max_bytes: int,
        retries: int,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._guard = guard
        self._login = login
        self._max_bytes = max_bytes
        self._retries = retries
        self._resolver = GuardedResolver(guard, resolver or ThreadedResolver())
        self._idle: defaultdict[tuple[str, int], list[_Connection]] = defaultdict(list)
        self._free: defaultdict[tuple[str, int], asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(CONNECTIONS)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await self._resolver.close()

    async def get(self, address: str) -> Blob:
        """Read a file. Raises an ItemUnreadable; the deadline over all of it is the caller's."""
        url, path = parse(address)

        async def read(connection: "_Connection") -> bytes:
            async with connection.data(f"RETR {path}") as reader:
                body = bytearray()
                while chunk := await reader.read(2**18):
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise ItemTooLarge(uri=shown(url), limit_bytes=self._max_bytes)
            return bytes(body)

        return Blob(await self._ask(url, read))

    async def list_folder(self, address: str) -> list[Entry]:
        """What a folder holds, in the server's order. Raises as `get` does."""
        url, path = parse(address)
        base = f"{str(url).rstrip('/')}/"

        async def read(connection: "_Connection") -> list[Entry]:
            try:
                async with connection.data(f"MLSD {path}".rstrip()) as reader:
                    return [_entry(line, base, connection.parse_mlsx_line) async for line in reader]
            except aioftp.StatusCodeError as error:
                if not error.received_codes[-1].matches("50x"):
                    raise
            async with connection.data(f"LIST {path}".rstrip()) as reader:
                return [_entry(line, base, connection.parse_list_line) async for line in reader]

        found = await self._ask(url, read)
        return [entry for entry in found if entry.kind not in ("cdir", "pdir")]

    async def _ask(self, url: URL, read: "Callable[[_Connection], Awaitable[T]]") -> T:
        host, port = url.host or "", url.port or 21

        async def attempt() -> T:
            async with self._free[host, port]:
                idle = self._idle[host, port]
                while idle:
                    try:
                        return await self._use(idle.pop(), idle, read, url)
                    except TryAgain:
                        continue  # the server may have hung up long ago: a fresh connection decides
                return await self._use(await self._open(url, host, port), idle, read, url)

        return await retried(attempt, self._retries, shown(url))

    async def _use(
        self,
        connection: "_Connection",
        idle: "list[_Connection]",
        read: "Callable[[_Connection], Awaitable[T]]",
        url: URL,
    ) -> T:
        connection.lines = 0
        try:
            answer = await read(connection)
        except aioftp.StatusCodeError as error:
            code = str(error.received_codes[-1])
            if code == "550":  # the connection is as good as before
                idle.append(connection)
            else:
                connection.close()
            raise _translated(code, " ".join(error.info), url) from None
        except (*_BROKEN, aioftp.AIOFTPException) as error:
            connection.close()
            raise TryAgain(f"the connection broke ({type(error).__name__})") from None
        except BaseException:
            connection.close()
            raise
        idle.append(connection)
        return answer

    async def _open(self, url: URL, host: str, port: int) -> "_Connection":
        try:
            addresses = await self._resolver.resolve(host, port)
        except OSError:
            raise TryAgain(f"{host[:60]} is not known") from None
        login = self._login if self._guard.allows(host, port) else None
        for address in addresses:
            connection = _Connection(connection_timeout=_CONNECT_TIMEOUT_S)
            try:
                await connection.connect(address["host"], port)
                await connection.login(*((login.username, login.password) if login else ()))
            except aioftp.StatusCodeError as error:
                connection.close()
                raise _translated(str(error.received_codes[-1]), " ".join(error.info), url) from None
            except (*_BROKEN, aioftp.AIOFTPException):
                connection.close()
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise TryAgain(f"no connection to {host[:60]}")


class _Connection(aioftp.Client):
    """A control connection that does not listen for ever, and closes every data connection."""

    lines = 0

    async def parse_line(self) -> tuple[aioftp.Code, str]:
        self.lines += 1
        if self.lines > _MOST_LINES:
            raise ConnectionAbortedError("the server talks on and on")
        return await super().parse_line()

    @asynccontextmanager
    async def data(self, command: str) -> AsyncIterator[asyncio.StreamReader]:
        """A data connection with what the command sends; its success is checked at the end."""
        reader, writer = await self.get_passive_connection("I")
        try:
            await self.command(command, "1xx")
            yield reader
        finally:
            writer.close()
        await self.command(None, "2xx")


def parse(address: str) -> tuple[URL, str]:
    """An ftp address and its path, decoded. Raises SourceUnsupported."""
    try:
        url = URL(address)
        url.port  # noqa: B018 yarl reads the port lazily, and raises then
    except ValueError:
        raise SourceUnsupported(uri=shown(address), problem="not a valid address") from None
    path = url.path.removeprefix("/")
    if url.scheme != "ftp" or not url.host or _CONTROL.search(path):
        raise SourceUnsupported(uri=shown(address), problem="not a valid ftp address")
    if url.user is not None or url.password is not None:
        raise SourceUnsupported(
            uri=shown(address), problem="it holds credentials: set NEXTBATCH_FTP_USERNAME and NEXTBATCH_FTP_PASSWORD"
        )
    return url, path


def _translated(code: str, said: str, url: URL) -> Exception:
    if code == "550" and re.search("permission|denied|privilege", said, re.IGNORECASE):
        return AccessRefused(uri=shown(url), problem="FTP 550")
    if code == "550":
        return ItemMissing(uri=shown(url))
    if code in ("530", "532", "430"):
        return AccessRefused(uri=shown(url), problem=f"FTP {code}")
    if code.startswith("4"):
        return TryAgain(f"FTP {code}")
    return FetchFailed(uri=shown(url), problem=f"FTP {code[:3]}")


def _entry(line: bytes, base: str, parse: Callable[[bytes], aioftp.client.PathWithInfo]) -> Entry:
    try:
        name, info = parse(line.rstrip(b"\r\n"))
        if "/" in str(name) or str(name) == "..":
            raise ValueError("a name that leads elsewhere")
        uri = f"{base}{quote(str(name))}"
        size = info.get("size")
        return Entry(uri, info["type"].lower(), int(size) if size else None, info.get("modify", ""))
    except (ValueError, KeyError, IndexError):
        return Entry(f"{base}{line[:80].decode(errors='replace').strip()}", None)

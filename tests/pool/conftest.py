"""Fixtures of the pool's tests: real servers on loopback that answer as they are told."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.abc import AbstractResolver
from yarl import URL

from backend.database import Item, Project, reading, transaction
from backend.pool import catalog
from backend.pool.sources import Blob, SourceConfig, Sources, open_buckets

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class WebServer:
    """A server on 127.0.0.1 that remembers what it was asked."""

    url: URL
    requests: list[web.BaseRequest] = field(default_factory=list)

    @property
    def host_port(self) -> str:
        return f"{self.url.host}:{self.url.port}"


@dataclass
class Web:
    """Starts servers in a thread with an event loop of its own."""

    loop: asyncio.AbstractEventLoop
    runners: list[web.ServerRunner] = field(default_factory=list)

    def serve(self, handler: Handler) -> WebServer:
        return asyncio.run_coroutine_threadsafe(self._serve(handler), self.loop).result(10)

    async def _serve(self, handler: Handler) -> WebServer:
        server = WebServer(URL())

        async def remember(request: web.BaseRequest) -> web.StreamResponse:
            server.requests.append(request)
            return await handler(request)  # type: ignore[arg-type] # the low-level server gives the base class

        runner = web.ServerRunner(web.Server(remember), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.runners.append(runner)
        server.url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        return server

    async def close(self) -> None:
        await asyncio.gather(*(runner.cleanup() for runner in self.runners))


@pytest.fixture
def web_servers() -> Iterator[Web]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers = Web(loop)
    yield servers
    asyncio.run_coroutine_threadsafe(servers.close(), loop).result(70)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def fetch(config: SourceConfig, uri: str | URL, resolver: AbstractResolver | None = None) -> Blob:
    """One address through a client of its own."""

    async def run() -> Blob:
        async with Sources(config, resolver) as sources:
            return await sources.fetch(str(uri))

    return asyncio.run(run())


def listed(config: SourceConfig, uri: str) -> list[str]:
    """Every address below a prefix."""
    return [found.uri for found in open_buckets(config).list_prefix(uri) if found.size_bytes]


@pytest.fixture
def pool_id(store: str) -> int:
    """An empty project, on SQLite and on Postgres."""
    assert store
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"})
        session.add(project)
    return project.id


@dataclass(frozen=True)
class Row:
    """What the catalogue says of an item."""

    state: str
    content_hash: str | None
    is_holdout: bool = False


def rows(pool_id: int) -> dict[str, Row]:
    """The whole catalogue by address."""
    with reading() as session:
        items = session.scalars(sa.select(Item).where(Item.project_id == pool_id).order_by(Item.id)).all()
    return {item.uri: Row(item.state, item.content_hash, item.is_holdout) for item in items}


def encode_all(pool_id: int, config: SourceConfig) -> list[str]:
    """Read what is new and record its hash, as a round does it. Returns the addresses that were read."""

    async def run(uris: list[str]) -> list[Blob]:
        async with Sources(config) as sources:
            return list(await asyncio.gather(*(sources.fetch(uri) for uri in uris)))

    with reading() as session:
        new = catalog.new_items(session, pool_id)
    blobs = asyncio.run(run([uri for _, uri in new]))
    if new:
        with transaction() as session:
            hashes = {id_: hashlib.sha256(blob.data).hexdigest() for (id_, _), blob in zip(new, blobs, strict=True)}
            catalog.mark_encoded(session, hashes)
    return [uri for _, uri in new]

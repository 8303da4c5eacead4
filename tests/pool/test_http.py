"""http: redirects, credentials, sizes, deadlines and retries, against real servers on loopback."""

import asyncio
import dataclasses
import gzip
import time
import tracemalloc

import pytest
from aiohttp import web

from backend.errors import (
    AccessRefused,
    AddressForbidden,
    FetchFailed,
    FetchTimedOut,
    ItemMissing,
    ItemTooLarge,
    ItemUnreadable,
    SourceUnsupported,
)
from backend.pool.http import MAX_REDIRECTS, shown
from backend.pool.sources import SourceConfig, Sources
from backend.processes import free_port
from tests.pool.conftest import Handler, Web, WebServer, fetch


async def picture(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"picture", headers={"ETag": '"7"'})


def redirect_to(target: str, status: int = 302) -> Handler:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": target})

    return handle


def open_to(*servers: WebServer, **settings: object) -> SourceConfig:
    return dataclasses.replace(SourceConfig(allow_hosts=tuple(server.host_port for server in servers)), **settings)  # type: ignore[arg-type]


def test_bytes_and_entity_tag_come_back(web_servers: Web) -> None:
    server = web_servers.serve(picture)

    blob = fetch(open_to(server), server.url / "cat.jpg")

    assert (blob.data, blob.etag) == (b"picture", '"7"')


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_an_allowed_host_is_followed(web_servers: Web, status: int) -> None:
    target = web_servers.serve(picture)
    start = web_servers.serve(redirect_to(str(target.url), status))

    assert fetch(open_to(start, target), start.url).data == b"picture"


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/", "//127.0.0.1:{port}/",
     "http://[::ffff:127.0.0.1]:{port}/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/",
     "file:///etc/passwd", "ftp://127.0.0.1:{port}/", "javascript:alert(1)", "http://", "http://a:b:c/"],
)  # fmt: skip
def test_a_redirect_into_the_private_network_is_refused(web_servers: Web, target: str) -> None:
    private = web_servers.serve(picture)
    start = web_servers.serve(redirect_to(target.format(port=private.url.port)))

    with pytest.raises((AddressForbidden, SourceUnsupported, FetchFailed)):
        fetch(open_to(start, retries=0), start.url)

    assert private.requests == []


def test_redirects_that_never_end_are_given_up(web_servers: Web) -> None:
    server = web_servers.serve(redirect_to("/again"))

    with pytest.raises(FetchFailed, match="redirects"):
        fetch(open_to(server), server.url)

    assert len(server.requests) == MAX_REDIRECTS + 1


def test_credentials_stay_with_the_host_they_were_given_for(web_servers: Web) -> None:
    target = web_servers.serve(picture)
    start = web_servers.serve(redirect_to(f"http://other:secret@{target.host_port}/"))

    fetch(open_to(start, target), start.url.with_user("me").with_password("secret"))

    assert start.requests[0].headers["Authorization"].startswith("Basic ")
    assert "Authorization" not in target.requests[0].headers


def test_cookies_are_not_kept(web_servers: Web) -> None:
    async def set_cookie(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/next", "Set-Cookie": "session=1; Path=/"})

    server = web_servers.serve(set_cookie)

    with pytest.raises(FetchFailed):
        fetch(open_to(server), server.url)

    assert all("Cookie" not in request.headers for request in server.requests)


def test_a_body_that_announces_too_much_is_not_read(web_servers: Web) -> None:
    server = web_servers.serve(picture)

    with pytest.raises(ItemTooLarge):
        fetch(open_to(server, max_bytes=6), server.url)

    assert fetch(open_to(server, max_bytes=7), server.url).data == b"picture"


def test_a_stream_without_end_is_cut_at_the_limit(web_servers: Web) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 2**30:
            await response.write(bytes(65_536))
            sent += 65_536
        return response

    server = web_servers.serve(endless)

    with pytest.raises(ItemTooLarge):
        fetch(open_to(server, max_bytes=2**20), server.url)

    assert sent < 64 * 2**20


def test_a_compressed_body_counts_as_large_as_it_unpacks(web_servers: Web) -> None:
    bomb = gzip.compress(bytes(512 * 2**20), 1)

    async def compressed(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server = web_servers.serve(compressed)
    config = open_to(server, max_bytes=4 * 2**20)

    tracemalloc.start()
    with pytest.raises(ItemTooLarge):
        fetch(config, server.url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 64 * 2**20


def test_a_server_that_trickles_meets_the_deadline(web_servers: Web) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(200):
            await response.write(b".")
            await asyncio.sleep(0.05)
        return response

    server = web_servers.serve(trickle)
    started = time.monotonic()

    with pytest.raises(FetchTimedOut, match=r"0\.5 s"):
        fetch(open_to(server, timeout_s=0.5), server.url)

    assert time.monotonic() - started < 8  # it trickles for 10


def test_a_server_that_never_answers_meets_the_deadline(web_servers: Web) -> None:
    async def silence(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    server = web_servers.serve(silence)

    with pytest.raises(FetchTimedOut):
        fetch(open_to(server, timeout_s=0.3), server.url)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(web_servers: Web, status: int) -> None:
    async def recovers(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"picture") if len(server.requests) == 3 else web.Response(status=status)

    server = web_servers.serve(recovers)

    assert fetch(open_to(server), server.url).data == b"picture"


def test_retries_are_bounded(web_servers: Web) -> None:
    async def broken(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    server = web_servers.serve(broken)

    with pytest.raises(FetchFailed, match="HTTP 503"):
        fetch(open_to(server, retries=2), server.url)

    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, ItemMissing), (410, ItemMissing), (401, AccessRefused), (403, AccessRefused), (400, FetchFailed),
     (204, FetchFailed), (304, FetchFailed)],
)  # fmt: skip
def test_a_lasting_failure_is_not_tried_again(web_servers: Web, status: int, error: type[ItemUnreadable]) -> None:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    server = web_servers.serve(handle)

    with pytest.raises(error):
        fetch(open_to(server), server.url)

    assert len(server.requests) == 1


def test_a_body_that_breaks_off_is_no_item(web_servers: Web) -> None:
    async def breaks_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    server = web_servers.serve(breaks_off)

    with pytest.raises(FetchFailed, match="broke"):
        fetch(open_to(server, retries=1), server.url)

    assert len(server.requests) == 2


def test_nobody_listening_is_said_plainly() -> None:
    port = free_port()

    with pytest.raises(FetchFailed, match="no connection to 127"):
        fetch(SourceConfig(allow_hosts=("127.0.0.1",), retries=0), f"http://127.0.0.1:{port}/")


def test_an_environment_proxy_is_not_used(web_servers: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = web_servers.serve(picture), web_servers.serve(picture)
    monkeypatch.setenv("http_proxy", str(proxy.url))

    fetch(open_to(server), server.url)

    assert proxy.requests == []


@pytest.mark.parametrize(
    "address", ["http://[", "http://x:99999999/", "http://x:port/", "http://\x00/", "gopher://x/", "data:,x"]
)
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ItemUnreadable):
        fetch(SourceConfig(retries=0, timeout_s=5), address)


def test_what_is_recorded_holds_no_secret_and_stays_short() -> None:
    address = f"https://me:secret@example.org/{'x' * 500}.jpg?X-Amz-Signature=secret#secret"

    assert "secret" not in shown(address)
    assert len(shown(address)) <= 100


def test_many_fetches_share_one_client(web_servers: Web) -> None:
    server = web_servers.serve(picture)

    async def run() -> list[bytes]:
        async with Sources(open_to(server)) as sources:
            return [blob.data for blob in await asyncio.gather(*(sources.fetch(str(server.url)) for _ in range(300)))]

    assert asyncio.run(run()) == [b"picture"] * 300

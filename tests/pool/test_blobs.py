"""The cache of fetched bytes: what did not change does not travel, what did is new, and the folder stays small."""

import asyncio
import dataclasses
import hashlib
import os
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from backend.errors import AddressForbidden, ItemTooLarge
from backend.pool.blobs import BlobCache
from backend.pool.files import Blob
from backend.pool.sources import SourceConfig, Sources
from tests.conftest import forget_process_state
from tests.pool.conftest import Web, WebServer, fetch
from tests.services.seaweed import S3Server

KIB = 2**10


@pytest.fixture
def cached(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that keeps what it fetches; where."""
    monkeypatch.setenv("NEXTBATCH_CACHE", str(home / "cache"))
    monkeypatch.setenv("NEXTBATCH_BLOB_CACHE_GIB", "0.01")
    forget_process_state()
    return home / "cache" / "blobs"


def serving(holder: dict[str, bytes]) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """A picture with an entity tag, as servers do it."""

    async def answer(request: web.BaseRequest) -> web.Response:
        etag = f'"{hashlib.md5(holder["picture"]).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=holder["picture"], headers={"ETag": etag})

    return answer


def open_to(server: WebServer) -> SourceConfig:
    return SourceConfig(allow_hosts=(server.host_port,), retries=0)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_did_not_change_is_asked_for_and_not_sent(cached: Path, web_servers: Web) -> None:
    holder = {"picture": b"one"}
    server = web_servers.serve(serving(holder))

    first = fetch(open_to(server), server.url)
    again = fetch(open_to(server), server.url)
    holder["picture"] = b"another"
    changed = fetch(open_to(server), server.url)

    assert (first.data, again.data, changed.data) == (b"one", b"one", b"another")
    assert first == again
    assert [request.headers.get("If-None-Match") for request in server.requests] == [None, first.etag, first.etag]


def test_an_object_of_a_bucket_is_kept_too(cached: Path, s3: S3Server) -> None:
    client = s3.client()
    client.create_bucket(Bucket="kept-pictures")
    client.put_object(Bucket="kept-pictures", Key="a.jpg", Body=b"one")
    config = SourceConfig(allow_buckets=("kept-pictures",), s3_endpoint=s3.endpoint)

    first = fetch(config, "s3://kept-pictures/a.jpg")
    content = next(path for path in files(cached / "contents"))
    before = content.stat().st_ino
    again = fetch(config, "s3://kept-pictures/a.jpg")
    client.put_object(Bucket="kept-pictures", Key="a.jpg", Body=b"another")

    assert again == first
    assert content.stat().st_ino == before, "it was written again, so it was sent again"
    assert fetch(config, "s3://kept-pictures/a.jpg").data == b"another"


def test_what_is_kept_is_no_way_around_the_rules(cached: Path, web_servers: Web) -> None:
    server = web_servers.serve(serving({"picture": b"picture"}))
    fetch(open_to(server), server.url)

    with pytest.raises(AddressForbidden):
        fetch(SourceConfig(), server.url)
    with pytest.raises(ItemTooLarge):
        fetch(dataclasses.replace(open_to(server), max_bytes=6), server.url)


def test_a_damaged_file_is_fetched_again(cached: Path, web_servers: Web) -> None:
    server = web_servers.serve(serving({"picture": b"picture"}))
    fetch(open_to(server), server.url)
    (content,) = files(cached / "contents")
    content.write_bytes(b"pictur\0")

    assert fetch(open_to(server), server.url).data == b"picture"
    assert content.read_bytes() == b"picture"


def test_without_the_setting_nothing_is_kept(home: Path, web_servers: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_CACHE", str(home / "cache"))
    forget_process_state()
    server = web_servers.serve(serving({"picture": b"picture"}))

    fetch(open_to(server), server.url)

    assert files(home / "cache") == []


def test_a_disk_that_does_not_take_it_is_no_error(cached: Path, web_servers: Web) -> None:
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"a file where the folder should be")
    server = web_servers.serve(serving({"picture": b"picture"}))

    assert fetch(open_to(server), server.url).data == b"picture"


def test_one_content_at_many_addresses_is_kept_once(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 2**20)

    for number in range(9):
        cache.keep(f"http://x/{number}", Blob(b"the same", f'"{number}"'))

    assert len(files(tmp_path / "contents")) == 1
    assert cache.find("http://x/7") == Blob(b"the same", '"7"')


@pytest.mark.parametrize("etag", [None, "", 'W/"weak"', '"two\nlines"'])
def test_what_cannot_be_asked_for_again_is_not_kept(tmp_path: Path, etag: str | None) -> None:
    cache = BlobCache(tmp_path, 2**20)

    cache.keep("http://x/", Blob(b"picture", etag))

    assert cache.find("http://x/") is None
    assert files(tmp_path) == []


def test_the_folder_never_outgrows_its_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    limit = 2**20
    cache, draw = BlobCache(tmp_path, limit), random.Random(0)
    for number in range(300):
        cache.keep(str(number), Blob(draw.randbytes(draw.randrange(1, 20 * KIB)), '"1"'))
        for path in files(tmp_path):
            if path.stat().st_mtime_ns > 10**18:  # as if each had been used a second after the one before
                os.utime(path, (number, number))
        assert cache.find("0") is not None or number > 200, "it was used all the time"
        assert sum(-(-path.stat().st_size // (4 * KIB)) * 4 * KIB for path in files(tmp_path)) <= limit

    kept = [number for number in range(300) if cache.find(str(number)) is not None]
    assert 299 in kept
    assert 5 not in kept


def test_threads_that_write_and_read_at_once_never_see_half_a_file(tmp_path: Path) -> None:
    cache, wrong = BlobCache(tmp_path, 2**20), []
    contents = [bytes([number]) * 30_000 for number in range(8)]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(60):
            content = draw.choice(contents)
            cache.keep("http://x/", Blob(content, f'"{content[0]}"'))
            found = cache.find("http://x/")
            if found is not None and found.etag != f'"{found.data[0]}"':
                wrong.append(found.etag)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_many_fetches_at_once_share_the_cache(cached: Path, web_servers: Web) -> None:
    server = web_servers.serve(serving({"picture": b"picture"}))

    async def run() -> list[bytes]:
        async with Sources(open_to(server)) as sources:
            uris = [f"{server.url}{number % 7}" for number in range(140)]
            return [blob.data for blob in await asyncio.gather(*map(sources.fetch, uris))]

    assert asyncio.run(run()) == [b"picture"] * 140
    assert len(files(cached / "addresses")) == 7

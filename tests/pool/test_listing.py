"""What a pool's source names: everything that may be an image, nothing else, and why the rest is left out."""

import dataclasses
import hashlib
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from xml.sax.saxutils import escape

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from backend.errors import (
    AccessRefused,
    BucketForbidden,
    FetchFailed,
    FolderOutsideRoot,
    ItemMissing,
    MissingSetting,
    PoolUnreadable,
)
from backend.pool.listing import Listing, list_pool
from backend.pool.refresh import refresh
from backend.pool.sources import SourceConfig
from backend.processes import free_port
from backend.settings import PoolSection
from tests.pool.conftest import Web, encode_all, fetch, rows
from tests.services.seaweed import S3Server


def listed(pool: PoolSection, config: SourceConfig) -> Listing:
    listing = list_pool(pool, config)
    assert listing is not None
    return listing


def uris(listing: Listing) -> list[str]:
    return [item.uri for item in listing]


def write(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_tasks_are_no_listing() -> None:
    assert list_pool(PoolSection(), SourceConfig()) is None


def test_a_source_without_a_path_says_what_is_missing() -> None:
    with pytest.raises(MissingSetting, match=r"pool\.path"):
        list_pool(PoolSection(source="s3"), SourceConfig())


def test_every_image_below_a_folder_is_listed_and_can_be_fetched(tmp_path: Path) -> None:
    names = ["a.jpg", "B.PNG", "odd & 100%+#?=.jpg", "täglich.webp", "below/c d.jpg", "below/deeper/e.gif"]
    for name in names:
        write(tmp_path / "pool" / name, name.encode())
    config = SourceConfig(data_root=tmp_path)

    found = uris(listed(PoolSection(source="folder", path=str(tmp_path / "pool")), config))

    assert sorted(fetch(config, uri).data.decode() for uri in found) == sorted(names)


def test_the_data_root_itself_can_be_the_pool(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")

    assert uris(listed(PoolSection(source="folder", path=str(tmp_path)), SourceConfig(data_root=tmp_path))) == [
        "/data/local-files/?d=a.jpg"
    ]


def test_what_a_folder_leaves_out_is_counted_by_reason(tmp_path: Path) -> None:
    pool, outside = tmp_path / "root" / "pool", write(tmp_path / "secret.jpg")
    write(pool / "notes.txt")
    write(pool / "empty.jpg", b"")
    os.mkfifo(pool / "pipe.jpg")
    (pool / "leads-out.jpg").symlink_to(outside)
    (pool / "leads-nowhere.jpg").symlink_to(pool / "none.jpg")
    (pool / "linked-folder").symlink_to(tmp_path)
    (pool / "fine.jpg").symlink_to(write(tmp_path / "root" / "real.jpg"))
    listing = listed(PoolSection(source="folder", path=str(pool)), SourceConfig(data_root=tmp_path / "root"))

    assert uris(listing) == ["/data/local-files/?d=real.jpg"]
    assert sum(listing.skipped.counts.values()) == 6
    assert any(": empty (" in line and "empty.jpg" in line for line in listing.skipped.lines())


def test_a_folder_outside_the_root_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    config = SourceConfig(data_root=tmp_path / "root")
    (tmp_path / "root").mkdir()

    with pytest.raises(FolderOutsideRoot):
        uris(listed(PoolSection(source="folder", path=str(tmp_path)), config))
    with pytest.raises(PoolUnreadable):
        uris(listed(PoolSection(source="folder", path=str(tmp_path / "root" / "none")), config))
    with pytest.raises(MissingSetting, match="NEXTBATCH_DATA_ROOT"):
        uris(listed(PoolSection(source="folder", path=str(tmp_path)), SourceConfig()))


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, pool_id: int) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.jpg")
    pool, config = PoolSection(source="folder", path=str(tmp_path)), SourceConfig(data_root=tmp_path)
    refresh(pool_id, listed(pool, config))
    encode_all(pool_id, config)

    write(tmp_path / "b.jpg", b"another")
    os.utime(tmp_path / "b.jpg", ns=(1, 1))
    (tmp_path / "c.jpg").unlink()
    seen = refresh(pool_id, listed(pool, config))

    assert (seen.changed, seen.gone, seen.unchanged) == (1, 1, 1)
    assert encode_all(pool_id, config) == ["/data/local-files/?d=b.jpg"]


@pytest.fixture(scope="module")
def filled(s3_server: S3Server) -> str:
    client = s3_server.client()
    client.create_bucket(Bucket="a-pool")
    for key in ("cats/1.jpg", "cats/2 ä+%20.png", "cats/below/3.JPEG", "cats-old/4.jpg", "cats/notes.txt"):
        client.put_object(Bucket="a-pool", Key=key, Body=key.encode())
    client.put_object(Bucket="a-pool", Key="cats/empty.jpg", Body=b"")
    client.put_object(Bucket="a-pool", Key="cats/marker/", Body=b"")
    return "a-pool"


@pytest.fixture
def bucket(s3: S3Server, filled: str) -> SourceConfig:
    return SourceConfig(allow_buckets=(f"{filled}/cats",), s3_endpoint=s3.endpoint)


def test_a_prefix_is_a_pool(bucket: SourceConfig) -> None:
    listing = listed(PoolSection(source="s3", path="s3://a-pool/cats"), bucket)

    found = uris(listing)

    assert sorted(found) == [f"s3://a-pool/cats/{name}" for name in ("1.jpg", "2 ä+%20.png", "below/3.JPEG")]
    assert [fetch(bucket, uri).data.decode() for uri in found] == [uri.removeprefix("s3://a-pool/") for uri in found]
    assert {"empty", "not named as an image"} <= listing.skipped.counts.keys()


def test_a_prefix_that_is_not_listed_is_not_asked_for(bucket: SourceConfig) -> None:
    with pytest.raises(BucketForbidden):
        uris(listed(PoolSection(source="s3", path="s3://a-pool/cats-old"), bucket))


def test_a_bucket_that_cannot_be_listed_is_no_empty_pool(bucket: SourceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(bucket, allow_buckets=("no-such-bucket",))
    away = dataclasses.replace(bucket, s3_endpoint=f"http://127.0.0.1:{free_port()}", timeout_s=2, retries=0)

    with pytest.raises(ItemMissing):
        uris(listed(PoolSection(source="s3", path="s3://no-such-bucket"), gone))
    with pytest.raises(FetchFailed):
        uris(listed(PoolSection(source="s3", path="s3://a-pool/cats"), away))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessRefused):
        uris(listed(PoolSection(source="s3", path="s3://a-pool/cats"), bucket))


def test_one_odd_key_does_not_hide_the_others(web_servers: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["p/1.jpg", "p/2.jpg", "p/a//odd.jpg", "p/b/../odd.jpg", "p/new\nline.jpg", "p/z & ü.jpg"]

    async def list_two_a_page(request: web.BaseRequest) -> web.Response:
        after = request.query.get("continuation-token") or request.query.get("start-after") or ""
        page = [key for key in keys if key > after][:2]
        entries = "".join(
            f"<Contents><Key>{escape(key, {chr(10): '&#10;'})}</Key><Size>3</Size><ETag>7</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in page
        )
        is_cut = page != [] and page[-1] != keys[-1]
        following = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if is_cut else ""
        return web.Response(
            content_type="application/xml",
            text=f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>pool</Name>'
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{following}{entries}</ListBucketResult>",
        )

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = web_servers.serve(list_two_a_page)
    config = SourceConfig(allow_buckets=("pool",), s3_endpoint=str(server.url).rstrip("/"))
    listing = listed(PoolSection(source="s3", path="s3://pool/p"), config)

    assert uris(listing) == ["s3://pool/p/1.jpg", "s3://pool/p/2.jpg", "s3://pool/p/z & ü.jpg"]
    assert sum(listing.skipped.counts.values()) == 3


def test_only_objects_that_changed_are_fetched_again(s3: S3Server, web_servers: Web, pool_id: int) -> None:
    client, name = s3.client(), f"pool-{pool_id}-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    for number in range(30):
        client.put_object(Bucket=name, Key=f"{number:02}.jpg", Body=b"%d" % number)
    proxy = web_servers.serve(forward_to(s3.endpoint))
    pool = PoolSection(source="s3", path=f"s3://{name}")
    config = SourceConfig(allow_buckets=(name,), s3_endpoint=str(proxy.url).rstrip("/"))
    refresh(pool_id, listed(pool, config))
    encode_all(pool_id, config)
    client.put_object(Bucket=name, Key="07.jpg", Body=b"another")
    client.put_object(Bucket=name, Key="08.jpg", Body=b"8")
    client.delete_object(Bucket=name, Key="09.jpg")
    proxy.requests.clear()

    seen = refresh(pool_id, listed(pool, config))
    asked_to_list = [request.rel_url.query.get("list-type") for request in proxy.requests]
    read = encode_all(pool_id, config)

    assert (seen.changed, seen.gone, seen.unchanged) == (1, 1, 28)
    assert asked_to_list == ["2"]
    assert read == [f"s3://{name}/07.jpg"]
    assert [request.path for request in proxy.requests[1:]] == [f"/{name}/07.jpg"]
    assert rows(pool_id)[f"s3://{name}/07.jpg"].content_hash == hashlib.sha256(b"another").hexdigest()


def forward_to(endpoint: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Requests go on as they came, Host included: it is signed."""

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        url = URL(endpoint + request.raw_path, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, headers=request.headers, allow_redirects=False) as answer,
        ):
            headers = {
                name: answer.headers[name]
                for name in ("ETag", "Last-Modified", "Content-Range")
                if name in answer.headers
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    return forward

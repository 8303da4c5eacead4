"""Manifests: every usable row becomes an item with its data; every other one is named by its line."""

import datetime as dt
import json
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from backend.errors import ItemMissing, MissingSetting, PathForbidden, PoolUnreadable
from backend.pool.catalog import NewItem
from backend.pool.listing import Listing, list_pool
from backend.pool.refresh import refresh
from backend.pool.sources import SourceConfig
from backend.settings import PoolSection
from tests.pool.conftest import Web, rows
from tests.services.seaweed import S3Server


def manifest(path: Path | str, root: Path | None, uri_field: str = "uri", **settings: object) -> Listing:
    pool = PoolSection(source="manifest", path=str(path), uri_field=uri_field)
    listing = list_pool(pool, SourceConfig(data_root=root, retries=0, **settings))  # type: ignore[arg-type]
    assert listing is not None
    return listing


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_columns_become_data(tmp_path: Path) -> None:
    file = write(tmp_path / "m.csv", '\ufeffuri,camera,note\r\na.jpg,3,"two\nlines"\r\nhttp://x/ä.jpg,,\r\n\r\n')

    assert list(manifest(file, tmp_path)) == [
        NewItem("a.jpg", {"camera": "3", "note": "two\nlines"}, validator=""),
        NewItem("http://x/ä.jpg", {"camera": "", "note": ""}, validator=""),
    ]


def test_bad_csv_lines_are_named_and_the_others_are_taken(tmp_path: Path) -> None:
    content = b'uri,n\na.jpg,1\nb.jpg\n"c"x,1\nd\xff.jpg,1\n,1\n  ,1\ne.jpg,1\n' + b"f" * 2_000_000 + b",1\ng.jpg,1\n"
    listing = manifest(write(tmp_path / "m.csv", content), tmp_path)

    assert [item.uri for item in listing] == ["a.jpg", "e.jpg", "g.jpg"]
    said = "\n".join(listing.skipped.lines())
    assert [f"line {number}" in said for number in (3, 4, 5, 6, 7, 9)] == [True] * 6
    assert sum(listing.skipped.counts.values()) == 6


def test_an_unclosed_quote_says_how_far_it_reached(tmp_path: Path) -> None:
    listing = manifest(write(tmp_path / "m.csv", 'uri\na.jpg\n"b.jpg\nc.jpg\nd.jpg\n'), tmp_path)

    assert [item.uri for item in listing] == ["a.jpg"]
    assert "lines 3 to 5" in listing.skipped.lines()[0]


def test_json_lines_keep_their_types_and_bad_ones_are_named(tmp_path: Path) -> None:
    lines = [
        '{"uri": "a.jpg", "n": 3, "tags": ["x", {"y": null}], "w": 0.5}',
        "{not json",
        '["a.jpg"]',
        '{"url": "no-uri.jpg"}',
        '{"uri": 7}',
        '{"uri": "\\ud800.jpg"}',
        '{"uri": "nul\\u0000.jpg"}',
        "",
        "[" * 100_000,
        '{"uri": "b.jpg", "w": NaN, "v": 1e999, "s": "\\ud800"}',
    ]
    listing = manifest(write(tmp_path / "m.jsonl", "\n".join(lines)), tmp_path)

    assert list(listing) == [
        NewItem("a.jpg", {"n": 3, "tags": ["x", {"y": None}], "w": 0.5}, validator=""),
        NewItem("b.jpg", {"w": None, "v": None, "s": "?"}, validator=""),
    ]
    said = "\n".join(listing.skipped.lines())
    assert [f"line {number}" in said for number in (2, 3, 4, 5, 6, 7, 9)] == [True] * 7


def test_a_parquet_file_is_read_batch_by_batch(tmp_path: Path) -> None:
    moment = dt.datetime(2026, 5, 1, 12, 0)  # noqa: DTZ001 - Parquet's have no zone unless they are given one
    table = pyarrow.table(
        {
            "image": [f"{number}.jpg" for number in range(12_000)] + [None],
            "when": [moment] * 12_001,
            "score": [float("nan")] * 12_001,
            "raw": [b"\xff"] * 12_001,
        }
    )
    parquet.write_table(table, tmp_path / "m.parquet")
    listing = manifest(tmp_path / "m.parquet", tmp_path, uri_field="image")

    items = list(listing)

    assert len(items) == 12_000
    assert items[7] == NewItem("7.jpg", {"when": moment.isoformat(), "score": None, "raw": None}, validator="")
    assert "row 12001" in listing.skipped.lines()[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", "url,n\na,1\n", "no column 'uri'.*url, n"),
        ("m.parquet", "no parquet", "no readable Parquet"),
        ("m.txt", "a.jpg\n", "must end in"),
    ],
)
def test_what_is_no_manifest_says_how_to_mend_it(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(PoolUnreadable, match=said):
        list(manifest(write(tmp_path / name, content), tmp_path))


def test_a_damaged_parquet_file_takes_nothing_away(tmp_path: Path, pool_id: int) -> None:
    parquet.write_table(pyarrow.table({"uri": [f"{number}.jpg" for number in range(500)]}), tmp_path / "m.parquet")
    refresh(pool_id, manifest(tmp_path / "m.parquet", tmp_path))
    whole = (tmp_path / "m.parquet").read_bytes()
    write(tmp_path / "m.parquet", whole[:200] + bytes(200) + whole[400:])

    with pytest.raises(PoolUnreadable):
        refresh(pool_id, manifest(tmp_path / "m.parquet", tmp_path))

    assert {row.state for row in rows(pool_id).values()} == {"new"}


def test_a_manifest_outside_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    file = write(tmp_path / "m.csv", "uri\na.jpg\n")
    (root / "link.csv").symlink_to(file)

    for path in (file, root / "link.csv"):
        with pytest.raises(PathForbidden):
            list(manifest(path, root))
    with pytest.raises(ItemMissing):
        list(manifest("none.csv", root))
    with pytest.raises(MissingSetting):
        list(manifest(file, None))


def test_a_manifest_on_the_web_and_in_a_bucket(web_servers: Web, s3: S3Server) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"uri\nfrom-web.jpg\n")

    server = web_servers.serve(answer)
    client = s3.client()
    client.create_bucket(Bucket="manifests")
    client.put_object(Bucket="manifests", Key="m.jsonl", Body=b'{"uri": "from-bucket.jpg"}')

    on_web = manifest(f"{server.url}list.csv?page=1", None, allow_hosts=(server.host_port,))
    in_bucket = manifest("s3://manifests/m.jsonl", None, allow_buckets=("manifests",), s3_endpoint=s3.endpoint)

    assert [item.uri for item in [*on_web, *in_bucket]] == ["from-web.jpg", "from-bucket.jpg"]


def test_a_long_manifest_is_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "m.jsonl").open("w") as file:
        file.writelines(json.dumps({"uri": f"{number}.jpg", "text": "x" * 1000}) + "\n" for number in range(20_000))

    tracemalloc.start()
    count = sum(1 for _ in manifest(tmp_path / "m.jsonl", tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 5 * 2**20


def test_the_data_reaches_the_catalogue_and_a_row_that_went_is_gone(tmp_path: Path, pool_id: int) -> None:
    refresh(pool_id, manifest(write(tmp_path / "m.csv", "uri,n\na,1\nb,2\na,3\n"), tmp_path))

    seen = refresh(pool_id, manifest(write(tmp_path / "m.csv", "uri,n\na,1\n"), tmp_path))

    assert (seen.added, seen.unchanged, seen.gone) == (0, 1, 1)
    assert {uri: row.state for uri, row in rows(pool_id).items()} == {"a": "new", "b": "gone"}


@given(st.binary(max_size=400), st.sampled_from(["m.csv", "m.tsv", "m.jsonl", "m.parquet"]))
def test_no_bytes_whatever_do_anything_but_say_so(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    root = tmp_path_factory.getbasetemp()
    listing = manifest(write(root / name, b"uri\n" + content), root)

    try:
        items = list(listing)
    except PoolUnreadable:
        return

    assert all(item.uri.strip() and "\0" not in item.uri for item in items)

"""S3 through a real server: what is allow-listed is read whole, what is not is never asked for."""

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import AccessRefused, BucketForbidden, FetchFailed, FetchTimedOut, ItemMissing, ItemTooLarge
from backend.pool.sources import SourceConfig, Sources
from backend.processes import free_port
from tests.pool.conftest import fetch, listed
from tests.services.seaweed import S3Server

KEYS = ("cats/1.jpg", "cats/2 with space.jpg", "cats/täglich%20#?+.jpg", "cats-old/1.jpg", "secret/1.jpg")


@pytest.fixture(scope="module")
def filled(s3_server: S3Server) -> str:
    client = s3_server.client()
    client.create_bucket(Bucket="pictures")
    for key in KEYS:
        client.put_object(Bucket="pictures", Key=key, Body=key.encode())
    client.put_object(Bucket="pictures", Key="cats/empty/", Body=b"")
    return "pictures"


@pytest.fixture
def config(s3: S3Server, filled: str) -> SourceConfig:
    return SourceConfig(allow_buckets=(f"{filled}/cats",), s3_endpoint=s3.endpoint, timeout_s=20)


@pytest.mark.parametrize("key", KEYS[:3])
def test_an_object_is_read_by_its_key_as_it_stands(config: SourceConfig, key: str) -> None:
    blob = fetch(config, f"s3://pictures/{key}")

    assert blob.data == key.encode()


def test_an_empty_object_is_no_bytes(config: SourceConfig, s3: S3Server) -> None:
    s3.client().create_bucket(Bucket="hollow")
    s3.client().put_object(Bucket="hollow", Key="nothing.jpg", Body=b"")

    blob = fetch(dataclasses.replace(config, allow_buckets=("hollow",)), "s3://hollow/nothing.jpg")

    assert blob.data == b""


@pytest.mark.parametrize(
    "uri",
    [
        "s3://pictures/secret/1.jpg",
        "s3://pictures/cats-old/1.jpg",
        "s3://pictures/cats/../secret/1.jpg",
        "s3://pictures/cats/./1.jpg",
        "s3://is-it-ready/yes",
        "s3://pictures",
        "s3://",
        "s3://../pictures/cats/1.jpg",
    ],
)
def test_what_is_not_listed_is_refused(config: SourceConfig, uri: str) -> None:
    with pytest.raises(BucketForbidden, match="allow_buckets"):
        fetch(config, uri)


def test_without_a_list_nothing_is_read(config: SourceConfig) -> None:
    with pytest.raises(BucketForbidden):
        fetch(dataclasses.replace(config, allow_buckets=()), "s3://pictures/cats/1.jpg")


def test_a_missing_object_and_a_missing_bucket_say_so(config: SourceConfig) -> None:
    both = dataclasses.replace(config, allow_buckets=("pictures", "no-such-bucket"))

    with pytest.raises(ItemMissing):
        fetch(both, "s3://pictures/cats/none.jpg")
    with pytest.raises(ItemMissing):
        fetch(both, "s3://no-such-bucket/none.jpg")


def test_a_wrong_key_is_an_access_problem(config: SourceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(AccessRefused):
        fetch(config, "s3://pictures/cats/1.jpg")


def test_without_credentials_a_private_bucket_is_refused(config: SourceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(AccessRefused):
        fetch(config, "s3://pictures/cats/1.jpg")


def test_an_object_over_the_limit_is_refused(config: SourceConfig) -> None:
    exact = len(KEYS[0])

    assert fetch(dataclasses.replace(config, max_bytes=exact), f"s3://pictures/{KEYS[0]}").data
    with pytest.raises(ItemTooLarge):
        fetch(dataclasses.replace(config, max_bytes=exact - 1), f"s3://pictures/{KEYS[0]}")


def test_a_prefix_lists_its_objects_and_no_neighbours(config: SourceConfig) -> None:
    found = listed(config, "s3://pictures/cats/")

    assert sorted(found) == sorted(f"s3://pictures/{key}" for key in KEYS[:3])


def test_every_listed_address_can_be_fetched(config: SourceConfig) -> None:
    found = listed(config, "s3://pictures/cats")

    assert [fetch(config, uri).data.decode() for uri in found] == [uri.removeprefix("s3://pictures/") for uri in found]


def test_listing_beyond_the_allowed_prefix_is_refused(config: SourceConfig) -> None:
    with pytest.raises(BucketForbidden):
        listed(config, "s3://pictures/")


def test_a_long_listing_comes_whole(s3: S3Server) -> None:
    client = s3.client()
    client.create_bucket(Bucket="many-objects")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: client.put_object(Bucket="many-objects", Key=f"{n:05}", Body=b"x"), range(1100)))

    found = listed(SourceConfig(allow_buckets=("many-objects",), s3_endpoint=s3.endpoint), "s3://many-objects")

    assert sorted(found) == [f"s3://many-objects/{number:05}" for number in range(1100)]


def test_many_fetches_share_one_store(config: SourceConfig) -> None:
    async def run() -> list[bytes]:
        async with Sources(config) as sources:
            blobs = await asyncio.gather(*(sources.fetch("s3://pictures/cats/1.jpg") for _ in range(200)))
            return [blob.data for blob in blobs]

    assert asyncio.run(run()) == [b"cats/1.jpg"] * 200


def test_a_store_that_is_not_there_fails_within_the_deadline(s3: S3Server) -> None:
    gone = SourceConfig(allow_buckets=("pictures",), s3_endpoint=f"http://127.0.0.1:{free_port()}", timeout_s=3)

    with pytest.raises((FetchFailed, FetchTimedOut)):
        fetch(gone, "s3://pictures/cats/1.jpg")

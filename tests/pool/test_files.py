"""Local files: everything below the root, nothing beside it, whatever links and threads do."""

import os
import threading
from pathlib import Path

import pytest

from backend.errors import (
    FetchTimedOut,
    ItemMissing,
    ItemTooLarge,
    ItemUnreadable,
    MissingSetting,
    PathForbidden,
    SourceUnsupported,
)
from backend.pool.files import read_below
from backend.pool.sources import SourceConfig
from tests.pool.conftest import fetch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a picture in it, and a secret beside it."""
    folder = tmp_path / "root"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "a picture%20.jpg").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-secret").mkdir()
    (tmp_path / "root-secret" / "secret").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize(
    "uri",
    ["cats/a picture%20.jpg", "{root}/cats/a picture%20.jpg", "file://{root}/cats/a%20picture%2520.jpg",
     "file://localhost{root}/cats/a%20picture%2520.jpg", "/data/local-files/?d=cats/a%20picture%2520.jpg",
     "/data/local-files/?d=cats%2Fa+picture%2520.jpg", "cats/../cats/a picture%20.jpg"],
)  # fmt: skip
def test_every_way_of_naming_a_file_below_the_root_reads_it(root: Path, uri: str) -> None:
    blob = fetch(SourceConfig(data_root=root), uri.format(root=root))

    assert blob.data == b"picture"
    assert blob.etag


@pytest.mark.parametrize(
    "uri",
    ["../secret", "cats/../../secret", "{root}/../secret", "{root}-secret/secret", "/etc/passwd", "file:///etc/passwd",
     "file://{root}/%2e%2e/secret", "/data/local-files/?d=../secret", "/data/local-files/?d=%2e%2e%2fsecret",
     "/data/local-files/?d=/etc/passwd", "/data/local-files/../../../../../../etc/passwd", "cats", ".", "",
     "../root-secret/secret", "cats\x00/../../secret", "file://elsewhere/etc/passwd",
     "/proc/self/environ", "/dev/zero"],
)  # fmt: skip
def test_no_way_of_naming_a_file_elsewhere_reads_it(root: Path, uri: str) -> None:
    with pytest.raises((PathForbidden, ItemMissing, SourceUnsupported)):
        fetch(SourceConfig(data_root=root), uri.format(root=root))


def test_a_link_within_the_root_is_followed_and_one_out_of_it_is_not(root: Path) -> None:
    (root / "inside").symlink_to(root / "cats")
    (root / "outside").symlink_to(root.parent)
    (root / "secret").symlink_to("../secret")
    (root / "circle").symlink_to("circle")
    config = SourceConfig(data_root=root)

    assert fetch(config, "inside/a picture%20.jpg").data == b"picture"
    for uri in ("outside/secret", "secret", "circle"):
        with pytest.raises(PathForbidden):
            fetch(config, uri)


def test_a_root_that_is_a_link_itself_works(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)

    assert fetch(SourceConfig(data_root=link), f"{link}/cats/a picture%20.jpg").data == b"picture"


def test_a_folder_that_is_swapped_for_a_link_while_it_is_read_gives_no_secret(root: Path) -> None:
    (root / "swapped").mkdir()
    (root / "swapped" / "secret").write_bytes(b"harmless")
    (root / "link").symlink_to(root.parent)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (root / "swapped").rename(root / "kept")
            (root / "link").rename(root / "swapped")
            (root / "swapped").rename(root / "link")
            (root / "kept").rename(root / "swapped")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    for _ in range(3000):
        try:
            seen.add(read_below(root, "swapped/secret", 100).data)
        except ItemUnreadable as error:
            seen.add(type(error).__name__.encode())
    done.set()
    thread.join()

    assert b"harmless" in seen
    assert b"secret" not in seen


def test_a_pipe_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe")

    with pytest.raises(PathForbidden, match="no plain file"):
        fetch(SourceConfig(data_root=root, timeout_s=5), "pipe")


def test_a_file_over_the_limit_is_refused(root: Path) -> None:
    assert fetch(SourceConfig(data_root=root, max_bytes=7), "cats/a picture%20.jpg").data == b"picture"
    with pytest.raises(ItemTooLarge):
        fetch(SourceConfig(data_root=root, max_bytes=6), "cats/a picture%20.jpg")


def test_a_missing_file_is_told_from_a_forbidden_one(root: Path) -> None:
    with pytest.raises(ItemMissing):
        fetch(SourceConfig(data_root=root), "cats/none.jpg")


def test_without_a_root_no_file_is_read(root: Path) -> None:
    for uri in ("/etc/passwd", str(root / "cats" / "a picture%20.jpg"), "/data/local-files/?d=cats"):
        with pytest.raises(PathForbidden, match="NEXTBATCH_DATA_ROOT"):
            fetch(SourceConfig(), uri)


def test_an_upload_without_label_studio_says_what_is_missing() -> None:
    with pytest.raises(SourceUnsupported, match="LABEL_STUDIO_URL"):
        fetch(SourceConfig(), "/data/upload/1/cat.jpg")


def test_a_label_studio_address_that_is_none_stops_at_the_start() -> None:
    with pytest.raises(MissingSetting, match="LABEL_STUDIO_URL"):
        fetch(SourceConfig(label_studio_url="label-studio:8080"), "/data/upload/1/cat.jpg")


def test_reasons_are_short_enough_to_record(root: Path) -> None:
    with pytest.raises(ItemUnreadable) as caught:
        fetch(SourceConfig(data_root=root), "../" + "x" * 5000)

    assert not isinstance(caught.value, FetchTimedOut)
    assert len(str(caught.value)) < 250

"""Archives: what is hostile in them is refused before it is written; what is plain comes out as it went in."""

import contextlib
import gzip
import io
import lzma
import stat
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ArchiveTooLarge, ArchiveUnsafe, DatasetUnreadable
from backend.pool.archives import Limits, unpack

KINDS = (".tar.gz", ".tar.xz", ".zip")
TREE = {"train/cat/1.jpg": b"one", "train/cat/sub/2.jpg": b"two" * 100_000, "test/dög/ü 3.jpg": b"", "a.txt": b"text"}


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def plain(name: str, data: bytes = b"x", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for attribute, value in changes.items():
        setattr(member, attribute, value)
    return member, data


def packed(folder: Path, kind: str, tree: dict[str, bytes]) -> Path:
    """An archive of plain files."""
    path = folder / f"archive{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in tree.items():
                archive.writestr(name, data)
        return path
    return compressed(path, tar_bytes(*(plain(name, data) for name, data in tree.items())))


def compressed(path: Path, tar: bytes) -> Path:
    path.write_bytes(gzip.compress(tar, 1) if path.name.endswith("gz") else lzma.compress(tar, preset=0))
    return path


def unpacked(archive: Path, limits: Limits | None = None) -> dict[str, bytes]:
    target = archive.parent / "target"
    target.mkdir()
    unpack(archive, target, limits)
    return {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    assert unpacked(packed(tmp_path, kind, TREE)) == TREE


def test_folders_and_dots_are_fine(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("./train/")
    folder.type = tarfile.DIRTYPE
    root = tarfile.TarInfo("./")
    root.type = tarfile.DIRTYPE

    tar = tar_bytes((root, b""), (folder, b""), plain("./train/1.jpg"), plain("t" * 150 + "/1.jpg"))

    assert set(unpacked(compressed(tmp_path / "a.tgz", tar))) == {"train/1.jpg", "t" * 150 + "/1.jpg"}


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    archive = compressed(tmp_path / "a.tar.gz", tar_bytes(plain("run", mode=0o6777, uid=0)))

    unpacked(archive)

    assert stat.S_IMODE((tmp_path / "target" / "run").stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "a/../../escaped",
        "/{tmp}/escaped",
        "a/b/../../../escaped",
        "..",
        "a\\..\\..\\escaped",
        "C:/escaped",
        "C:escaped",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    name = name.format(tmp=str(tmp_path).strip("/"))
    if kind == ".zip":
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            archive.writestr(entry, b"x")
    else:
        path = compressed(tmp_path / f"archive{kind}", tar_bytes(plain(name)))

    with pytest.raises(ArchiveUnsafe, match="leads out"):
        unpacked(path)

    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_a_tar_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("train/cat/1.jpg")
    member.type = kind
    member.linkname = "/etc/passwd"

    with pytest.raises(ArchiveUnsafe, match="neither"):
        unpacked(compressed(tmp_path / "a.tar.gz", tar_bytes((member, b""))))

    assert not (tmp_path / "target" / "train" / "cat" / "1.jpg").exists()


def test_a_link_followed_by_a_file_through_it_writes_nothing_outside(tmp_path: Path) -> None:
    link = tarfile.TarInfo("out")
    link.type = tarfile.SYMTYPE
    link.linkname = str(tmp_path)

    with pytest.raises(ArchiveUnsafe):
        unpacked(compressed(tmp_path / "a.tar.gz", tar_bytes((link, b""), plain("out/escaped"))))

    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_links_or_devices_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.create_system = 3
        entry.external_attr = (mode | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")

    with pytest.raises(ArchiveUnsafe, match="neither"):
        unpacked(path)


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "./a")])
@pytest.mark.parametrize("kind", KINDS)
def test_one_path_twice_is_refused(tmp_path: Path, kind: str, names: tuple[str, str]) -> None:
    path = tmp_path / f"archive{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's own, for a name given twice
            for name in names:
                archive.writestr(name, b"x")
    else:
        compressed(path, tar_bytes(*(plain(name) for name in names)))

    with pytest.raises(ArchiveUnsafe, match=r"twice|both"):
        unpacked(path)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(Limits(files=3), "3 files"), (Limits(file_bytes=299_999), "in one file"), (Limits(total_bytes=300_006), "300006"),
     (Limits(ratio=2, ratio_from_bytes=1000), "bytes")],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_each_limit_holds(tmp_path: Path, kind: str, limits: Limits, reason: str) -> None:
    with pytest.raises(ArchiveTooLarge, match=reason):
        unpacked(packed(tmp_path, kind, TREE), limits)


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_at_the_limits_passes(tmp_path: Path, kind: str) -> None:
    assert unpacked(packed(tmp_path, kind, TREE), Limits(files=4, file_bytes=300_000, total_bytes=300_007)) == TREE


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_stopped_by_its_ratio_and_costs_no_memory(tmp_path: Path, kind: str) -> None:
    archive = packed(tmp_path, kind, {f"{number}": bytes(16 * 2**20) for number in range(4)})
    limits = Limits(ratio_from_bytes=32 * 2**20, ratio=20)

    tracemalloc.start()
    with pytest.raises(ArchiveTooLarge):
        unpacked(archive, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    written = sum(file.stat().st_size for file in (tmp_path / "target").iterdir())
    assert written <= 33 * 2**20
    assert peak < 24 * 2**20


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path) -> None:
    archive = packed(tmp_path, ".zip", {"1.jpg": bytes(10 * 2**20)})
    content = archive.read_bytes()
    size = struct.pack("<I", 10 * 2**20)
    archive.write_bytes(content.replace(size, struct.pack("<I", 100)))

    with pytest.raises((ArchiveUnsafe, ArchiveTooLarge, DatasetUnreadable)):
        unpacked(archive)

    assert sum(file.stat().st_size for file in (tmp_path / "target").iterdir()) <= 100


def test_entries_of_a_zip_that_share_their_bytes_are_counted_each(tmp_path: Path) -> None:
    archive = packed(tmp_path, ".zip", {"a": bytes(2**20)})
    content = archive.read_bytes()
    start = content.index(b"PK\x01\x02")
    directory, end = content[start : content.index(b"PK\x05\x06")], bytearray(content[content.index(b"PK\x05\x06") :])
    many = b"".join(directory[:-1] + bytes([97 + number]) for number in range(20))
    end[8:12] = struct.pack("<HH", 20, 20)
    end[12:16] = struct.pack("<I", len(many))
    archive.write_bytes(content[:start] + many + bytes(end))

    with pytest.raises((ArchiveTooLarge, ArchiveUnsafe, DatasetUnreadable)):
        unpacked(archive, Limits(ratio_from_bytes=4 * 2**20, ratio=1))


def test_a_header_that_wants_all_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    header.size = 512 * 2**20
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(512):
            file.write(bytes(2**20))

    tracemalloc.start()
    with pytest.raises(ArchiveUnsafe, match="header"):
        unpacked(tmp_path / "a.tar.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 24 * 2**20


def test_an_xz_that_wants_gigabytes_to_unpack_is_refused(tmp_path: Path) -> None:
    data = tar_bytes(plain("1.jpg"))
    small = bytearray(lzma.compress(data, preset=0))
    properties = small.index(b"\x21\x01", 12)  # filter id and size of properties, in the block header
    small[properties + 2] = 37  # 1.5 GiB
    header_size = (small[12] + 1) * 4
    small[12 + header_size - 4 : 12 + header_size] = struct.pack("<I", zlib.crc32(small[12 : 12 + header_size - 4]))
    (tmp_path / "a.tar.xz").write_bytes(small)

    with pytest.raises(DatasetUnreadable, match=r"[Mm]emory"):
        unpacked(tmp_path / "a.tar.xz")


def test_xz_in_several_streams_comes_out_whole(tmp_path: Path) -> None:
    tar = tar_bytes(*(plain(name, data) for name, data in TREE.items()))
    pieces = [tar[start : start + 70_000] for start in range(0, len(tar), 70_000)]
    (tmp_path / "a.tar.xz").write_bytes(b"".join(lzma.compress(piece, preset=0) + bytes(4) for piece in pieces))

    assert unpacked(tmp_path / "a.tar.xz") == TREE


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    member, data = plain("1.jpg", b"x" * 512)
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 2**32
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)

    with pytest.raises((ArchiveUnsafe, DatasetUnreadable)):
        unpacked(compressed(tmp_path / "a.tar.gz", bytes(header) + data + bytes(1024)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"no archive" * 100])
def test_a_damaged_archive_says_so(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    archive = packed(tmp_path, kind, TREE)
    archive.write_bytes(damage(archive.read_bytes()))

    with pytest.raises(DatasetUnreadable, match="class folders"):
        unpacked(archive)


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    archive = packed(tmp_path, ".zip", {"1.jpg": b"x"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)

    with pytest.raises(DatasetUnreadable, match="encrypted"):
        unpacked(archive)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_ends_in_files_or_in_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, value: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    archive = packed(folder, kind, {"train/cat/1.jpg": b"one", "b/2.jpg": bytes(range(256))})
    content = bytearray(archive.read_bytes())
    content[int(at * len(content))] = value
    archive.write_bytes(content)

    with contextlib.suppress(ArchiveUnsafe, ArchiveTooLarge, DatasetUnreadable):
        unpacked(archive)

    assert {path.name for path in folder.iterdir()} == {archive.name, "target"}

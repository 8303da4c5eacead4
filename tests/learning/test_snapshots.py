"""A data snapshot's name is its content, and its file cannot lie about it."""

import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import SnapshotUnreadable
from backend.learning import snapshots
from backend.learning.snapshots import Row, Snapshot

texts = st.text(max_size=8)
rows = st.lists(
    st.builds(Row, texts, texts, texts, texts, texts, st.sampled_from(["train", "holdout"])),
    max_size=30,
    unique_by=lambda row: (row.item_id, row.annotation_id),
)


def a_snapshot(count: int = 5) -> Snapshot:
    return Snapshot.of("config", [Row(f"item {n}", "1", f"hash{n}", "cät", "ann", "train") for n in range(count)])


@settings(max_examples=50, deadline=None)
@given(rows=rows, config=texts, seed=st.integers(0, 1_000))
def test_order_does_not_matter_and_the_file_gives_everything_back(
    rows: list[Row], config: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)
    directory = tmp_path_factory.mktemp("snapshots")

    path = Snapshot.of(config, rows).write(directory)

    assert path.name == f"{Snapshot.of(config, shuffled).digest}.jsonl.gz"
    assert Snapshot.read(path) == Snapshot.of(config, shuffled)


def test_every_field_is_in_the_name() -> None:
    row = Row("item", "1", "hash", "cat", "ann", "train")
    changes = [{name: "other"} for name in ("item_id", "annotation_id", "content_hash", "label", "annotator")]

    digests = {
        Snapshot.of("config", [replace(row, **change)]).digest for change in [{}, *changes, {"split": "holdout"}]
    }

    assert len(digests | {Snapshot.of("other", [row]).digest, Snapshot.of("config", []).digest}) == 9


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = a_snapshot().write(tmp_path / "one"), a_snapshot().write(tmp_path / "two")

    assert one.read_bytes() == two.read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [one.name]


def test_an_annotation_that_comes_twice_is_refused() -> None:
    row = Row("item", "1", "hash", "cat", "ann", "train")

    with pytest.raises(ValueError, match="comes twice"):
        Snapshot.of("config", [row, replace(row, label="dog")])


def spoilt(path: Path, how: str) -> None:
    path.chmod(0o644)
    text = gzip.decompress(path.read_bytes())
    match how:
        case "label changed":
            path.write_bytes(gzip.compress(text.replace(b"hash3", b"hash4")))
        case "row lost":
            path.write_bytes(gzip.compress(b"".join(text.splitlines(keepends=True)[:-1])))
        case "cut":
            path.write_bytes(path.read_bytes()[:-20])
        case "no gzip":
            path.write_bytes(text)
        case "no header":
            path.write_bytes(gzip.compress(b"[]\n"))
        case "strange row":
            path.write_bytes(gzip.compress(text + b'{"item_id": 4}\n'))
        case "number for a label":
            path.write_bytes(gzip.compress(text.replace(b'"item 1"', b"17")))
        case "missing":
            path.unlink()


@pytest.mark.parametrize(
    "how",
    ["label changed", "row lost", "cut", "no gzip", "no header", "strange row", "number for a label", "missing"],
)
def test_a_changed_file_is_not_believed(how: str, tmp_path: Path) -> None:
    path = a_snapshot().write(tmp_path)
    spoilt(path, how)

    with pytest.raises(SnapshotUnreadable):
        Snapshot.read(path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_snapshot().write(tmp_path)
    path.chmod(0o644)
    header = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[0]
    path.write_bytes(gzip.compress(header + b" " * (3 * snapshots._MAX_LINE_BYTES)))

    with pytest.raises(SnapshotUnreadable, match="more than a snapshot may hold"):
        Snapshot.read(path)

"""Cleaning and compacting lose nothing that is wanted, whoever reads, writes or is killed meanwhile."""

import fcntl
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.errors import VectorsDamaged, VectorsInUse
from backend.scoring import compaction, vectors
from backend.scoring.vectors import VectorStore
from tests.scoring import vector_collector
from tests.scoring.vector_writer import DIMS, content_hash, vector

DIGEST = "c" * 64
SEGMENT = 50


def rows_of(hashes: Sequence[str]) -> NDArray[np.float16]:
    return np.stack([vector(hash_) for hash_ in hashes])


def keep(wanted: set[str]) -> compaction.IsWanted:
    return lambda hashes: np.array([hash_ in wanted for hash_ in hashes], bool)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "SEGMENT_ROWS", SEGMENT)


@pytest.fixture
def store(tmp_path: Path, short_segments: None) -> Iterator[VectorStore]:
    made = VectorStore(tmp_path, DIGEST, DIMS)
    yield made
    made.close()


def start_collector(root: Path, grace_s: float) -> "subprocess.Popen[str]":
    arguments = [str(root), DIGEST, str(SEGMENT), str(grace_s)]
    command = [sys.executable, "-m", "tests.scoring.vector_collector", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def fill(store: VectorStore, count: int) -> list[str]:
    hashes = [content_hash("test", number) for number in range(count)]
    for start in range(0, count, 30):
        store.put(hashes[start : start + 30], rows_of(hashes[start : start + 30]))
    return hashes


@given(
    turns=st.lists(
        st.tuples(st.lists(st.integers(0, 40), max_size=12), st.sets(st.integers(0, 40), max_size=12)), max_size=6
    ),
    segment_rows=st.integers(1, 9),
    grace_s=st.sampled_from([-1.0, 3600.0]),
)
@example(turns=[([0], {0}), ([0], set())], segment_rows=1, grace_s=-1.0)
@example(turns=[([1], {1}), ([0], set())], segment_rows=1, grace_s=3600.0)
@settings(max_examples=40, deadline=None)
def test_it_stays_a_dictionary_however_often_it_is_cleaned(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[list[int], set[int]]], segment_rows: int, grace_s: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "SEGMENT_ROWS", segment_rows)
        patch.setattr(vectors, "GRACE_S", grace_s)
        patch.setattr(compaction, "MOVE_ROWS", 2)
        store = VectorStore(tmp_path_factory.mktemp("store"), DIGEST, DIMS)
        there: set[str] = set()
        for added, unwanted in turns:
            hashes = [content_hash("test", n) for n in dict.fromkeys(added)]
            store.put(hashes, rows_of(hashes) if hashes else np.empty((0, DIMS)))
            there |= set(hashes)
            gone = there & {content_hash("test", n) for n in unwanted}

            counted = compaction.unwanted(store, keep(there - gone))
            removed = compaction.clean(store, lambda kept=there - gone: keep(kept))
            compaction.compact(store)

            there -= gone
            assert counted == removed == len(gone)
        again = VectorStore(store.path.parent, DIGEST, DIMS)
        for reader in (store, again):
            assert len(reader) == len(there)
            known = sorted(there)
            np.testing.assert_array_equal(
                reader.gather(known), rows_of(known) if known else np.empty((0, DIMS), np.float16)
            )
            located = {int(row) for row in reader.locate(known)}
            covered = {one.first + place for one in reader.segments() for place in range(len(one.vectors))}
            assert located <= covered
            assert reader.verify().damaged == ()
            reader.close()


def test_located_rows_can_be_read_until_the_grace_is_over(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = fill(store, 4 * SEGMENT)
    kept = hashes[::4]
    reader = VectorStore(store.path.parent, DIGEST, DIMS)  # it has mapped nothing yet
    rows = reader.locate(kept)
    before = store.size_bytes()

    compaction.clean(store, lambda: keep(set(kept)))
    emptied = compaction.compact(store)
    during = reader.gather(rows)
    monkeypatch.setattr(vectors, "GRACE_S", -1.0)
    later = VectorStore(store.path.parent, DIGEST, DIMS)

    assert emptied == 4
    np.testing.assert_array_equal(during, rows_of(kept))
    np.testing.assert_array_equal(later.gather(kept), rows_of(kept))
    assert later.size_bytes() < before / 2


def test_a_segment_that_is_mostly_alive_is_left_alone(store: VectorStore) -> None:
    hashes = fill(store, 3 * SEGMENT)

    compaction.clean(store, lambda: keep(set(hashes) - set(hashes[:5])))

    assert compaction.compact(store) == 0


def test_damage_is_not_moved_under_a_new_checksum(store: VectorStore) -> None:
    hashes = fill(store, 3 * SEGMENT)
    with (store.path / "000000.vectors").open("r+b") as file:
        file.seek(vectors.HEADER_BYTES + 7)
        file.write(b"\xff")
    compaction.clean(store, lambda: keep(set(hashes[::4])))

    with pytest.raises(VectorsDamaged):
        compaction.compact(store)

    assert len(store.verify().damaged) == 1


def test_nothing_is_cleaned_while_a_scan_runs(store: VectorStore) -> None:
    fill(store, 10)

    with store.held(), pytest.raises(VectorsInUse):
        compaction.clean(VectorStore(store.path.parent, DIGEST, DIMS), lambda: keep(set()))
    with store.held(fcntl.LOCK_SH):
        pass

    assert len(store) == 10
    assert compaction.clean(store, lambda: keep(set())) == 10


@pytest.mark.parametrize("trial", range(5))
def test_a_collector_killed_at_any_moment_loses_nothing_that_is_wanted(
    tmp_path: Path, short_segments: None, trial: int
) -> None:
    process = start_collector(tmp_path, grace_s=0)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(4 + 3 * trial)]
    threading.Event().wait(random.Random(trial).uniform(0, 0.1))  # anywhere in a turn
    process.kill()
    seen += process.stdout.read().splitlines(keepends=True)
    process.wait()
    turns = sum(line.endswith("\n") for line in seen) - 1
    put = [content_hash("collector", number) for number in range(turns * vector_collector.PER_TURN)]
    wanted = put[::2]

    store = VectorStore(tmp_path, DIGEST, DIMS)

    np.testing.assert_array_equal(store.gather(wanted), rows_of(wanted))
    assert store.verify().damaged == ()
    compaction.clean(store, lambda: vector_collector.is_wanted)
    compaction.compact(store)
    np.testing.assert_array_equal(store.gather(wanted), rows_of(wanted))
    assert store.verify().damaged == ()


def test_readers_and_a_writer_go_on_beside_a_collector(tmp_path: Path, short_segments: None) -> None:
    store = VectorStore(tmp_path, DIGEST, DIMS)
    mine = [content_hash("collector", 2 * number) for number in range(500, 1_000)]  # wanted, by number
    with start_collector(tmp_path, grace_s=3600) as process:
        assert process.stdout is not None
        for start in range(0, len(mine), 20):
            process.stdout.readline()
            part = mine[start : start + 20]
            store.put(part, rows_of(part))
            known = mine[: start + 20]
            np.testing.assert_array_equal(store.gather(known), rows_of(known))
        process.kill()

    np.testing.assert_array_equal(store.gather(mine), rows_of(mine))
    assert store.verify().damaged == ()


def test_a_process_that_had_a_store_open_goes_on_in_the_one_that_was_made_in_its_place(tmp_path: Path) -> None:
    first, second, third = ([content_hash("store", number) for number in some] for some in ([0, 1], [2, 3, 4], [5, 6]))
    long_open = VectorStore(tmp_path, DIGEST, DIMS)
    long_open.put(first, rows_of(first))
    shutil.rmtree(long_open.path)  # nothing used that encoder any more
    made_anew = VectorStore(tmp_path, DIGEST, DIMS)
    made_anew.put(second, rows_of(second))

    with long_open.held():
        long_open.put(third, rows_of(third))

    for store in (made_anew, long_open):
        assert store.verify().damaged == ()
        assert (store.locate(first) == -1).all()
        np.testing.assert_array_equal(store.gather(second + third), rows_of(second + third))


def test_a_process_that_had_a_store_open_makes_it_anew_where_it_is_gone(tmp_path: Path) -> None:
    hashes = [content_hash("store", number) for number in range(3)]
    store = VectorStore(tmp_path, DIGEST, DIMS)
    store.put(hashes, rows_of(hashes))
    shutil.rmtree(store.path)

    with store.held():
        found = store.locate(hashes)
        store.put(hashes, rows_of(hashes))

    assert (found == -1).all()
    np.testing.assert_array_equal(store.gather(hashes), rows_of(hashes))

"""The vector store keeps what it acknowledged, whatever happens to its writers."""

import hashlib
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.errors import BadVectors, VectorsDamaged, VectorsMissing, VectorStoreMismatch
from backend.scoring import vector_index, vectors
from backend.scoring.predict import predict_rows
from backend.scoring.vectors import VectorStore
from tests.scoring import vector_writer

DIGEST = "d" * 64
DIMS = vector_writer.DIMS
Vectors = NDArray[np.floating]


def hash_of(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def rows_of(hashes: list[str]) -> Vectors:
    return np.stack([vector_writer.vector(h) for h in hashes])


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path, DIGEST, DIMS)


def start_writer(root: Path, writer: str, puts: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.scoring.vector_writer", str(root), DIGEST, writer, str(puts)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


@given(
    puts=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=8),
    asked=st.lists(st.integers(0, 35), max_size=20),
    segment_rows=st.integers(1, 9),
    many=st.sampled_from([0, vector_index.MANY]),
)
@settings(max_examples=60, deadline=None)
def test_it_behaves_as_a_dictionary_whose_first_value_stays(
    tmp_path_factory: pytest.TempPathFactory, puts: list[list[int]], asked: list[int], segment_rows: int,
    many: int,
) -> None:  # fmt: skip
    oracle: dict[str, Vectors] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "SEGMENT_ROWS", segment_rows)  # many segments out of few rows
        patch.setattr(vector_index, "MANY", many)  # at 0 it reads through the whole index
        store = VectorStore(tmp_path_factory.mktemp("store"), DIGEST, DIMS)

        for turn, numbers in enumerate(puts):
            hashes = [hash_of(n) for n in dict.fromkeys(numbers)]
            values = np.array([[turn + n / 64] * DIMS for n in dict.fromkeys(numbers)], np.float32).reshape(-1, DIMS)
            fresh = store.put(hashes, values)
            assert fresh == len(set(hashes) - set(oracle))
            for hash_, value in zip(hashes, values, strict=True):
                oracle.setdefault(hash_, value)
        again = VectorStore(store.path.parent, DIGEST, DIMS)

        for reader in (store, again):
            wanted = [hash_of(n) for n in asked]
            located = reader.locate(wanted)
            known = [h for h in wanted if h in oracle]
            assert [row >= 0 for row in located] == [h in oracle for h in wanted]
            assert len(set(located[located >= 0])) == len(set(known))
            np.testing.assert_array_equal(
                reader.gather(known), np.array([oracle[h] for h in known], np.float16).reshape(-1, DIMS)
            )
            np.testing.assert_array_equal(reader.gather(located[located >= 0]), reader.gather(known))
            assert len(reader) == len(oracle) == sum(len(s.vectors) for s in reader.segments())
            assert reader.verify() == vectors.Verification(len(oracle), ())
            reader.close()


def test_segments_are_the_rows_that_locate_names(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "SEGMENT_ROWS", 10)
    hashes = [hash_of(i) for i in range(37)]
    store.put(hashes[:25], rows_of(hashes[:25]))
    store.put(hashes[25:], rows_of(hashes[25:]))

    segments = list(store.segments())

    assert [(s.first, len(s.vectors)) for s in segments] == [(0, 10), (10, 10), (20, 10), (30, 7)]
    whole = np.concatenate([s.vectors for s in segments])
    np.testing.assert_array_equal(whole[store.locate(hashes)], rows_of(hashes))
    assert not any(s.vectors.flags.writeable for s in segments)


@pytest.mark.parametrize("trial", range(6))
def test_acknowledged_rows_outlive_a_killed_writer(tmp_path: Path, trial: int) -> None:
    writer = start_writer(tmp_path, "killed", 100_000)
    assert writer.stdout is not None
    seen = [writer.stdout.readline() for _ in range(1 + trial)]
    delay = threading.Event()
    delay.wait(random.Random(trial).uniform(0, 0.15))  # anywhere between two puts
    writer.kill()
    seen += writer.stdout.read().splitlines(keepends=True)
    writer.wait()
    puts = sum(line.endswith("\n") for line in seen)
    acknowledged = [vector_writer.content_hash("killed", n) for n in range(puts * vector_writer.PER_PUT)]

    store = VectorStore(tmp_path, DIGEST, DIMS)

    np.testing.assert_array_equal(store.gather(acknowledged), rows_of(acknowledged))
    assert len(store) in (len(acknowledged), len(acknowledged) + vector_writer.PER_PUT)
    assert store.verify().damaged == ()
    more = [hash_of(("after", n)) for n in range(50)]
    assert store.put(more, rows_of(more)) == 50
    np.testing.assert_array_equal(store.gather(more), rows_of(more))
    assert store.verify().damaged == ()


def test_several_processes_append_while_one_is_killed_and_another_reads(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, name, 40) for name in ("one", "two")]
    killed = start_writer(tmp_path, "killed", 100_000)
    store = VectorStore(tmp_path, DIGEST, DIMS)
    seen = 0

    while any(writer.poll() is None for writer in writers):
        for segment in store.segments():
            assert np.isfinite(segment.vectors).all()
            seen = max(seen, segment.first + len(segment.vectors))
        if seen > 400:
            killed.kill()
    killed.kill()
    for process in (*writers, killed):
        process.communicate()

    hashes = [vector_writer.content_hash(w, n) for w in ("one", "two") for n in range(40 * vector_writer.PER_PUT)]
    np.testing.assert_array_equal(store.gather(hashes), rows_of(hashes))
    assert store.verify().damaged == ()


def test_threads_share_one_store(store: VectorStore) -> None:
    hashes = [hash_of(i) for i in range(400)]
    problems: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for start in range(offset, 400, 40):  # overlapping: every row is offered four times
                part = hashes[start : start + 40]
                store.put(part, rows_of(part))
                np.testing.assert_array_equal(store.gather(part), rows_of(part))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert len(store) == 400


def test_damaged_bytes_are_found_named_and_forgotten(store: VectorStore) -> None:
    first, second = [hash_of(i) for i in range(20)], [hash_of(i) for i in range(20, 40)]
    store.put(first, rows_of(first))
    store.put(second, rows_of(second))
    place = vectors.HEADER_BYTES + 25 * DIMS * 2
    with (store.path / "000000.vectors").open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))

    found = store.verify(mend=True)

    assert [(b.first, b.rows) for b in found.damaged] == [(20, 20)]
    assert (store.locate(second) == -1).all()
    np.testing.assert_array_equal(store.gather(first), rows_of(first))
    assert store.put(second, rows_of(second)) == 20
    np.testing.assert_array_equal(store.gather(second), rows_of(second))
    assert store.verify().damaged == ()


def test_a_file_cut_short_is_an_error_and_not_a_crash(store: VectorStore) -> None:
    hashes = [hash_of(i) for i in range(20)]
    store.put(hashes, rows_of(hashes))
    file = store.path / "000000.vectors"
    with file.open("r+b") as handle:
        handle.truncate(vectors.HEADER_BYTES + 5 * DIMS * 2)
    reader = VectorStore(store.path.parent, DIGEST, DIMS)

    with pytest.raises(VectorsDamaged, match="20 rows are committed, 5 are there"):
        reader.gather(hashes)

    assert len(reader.verify().damaged) == 1


def test_another_shape_or_type_is_refused(store: VectorStore) -> None:
    with pytest.raises(VectorStoreMismatch):
        VectorStore(store.path.parent, DIGEST, DIMS + 1)
    with pytest.raises(VectorStoreMismatch):
        VectorStore(store.path.parent, DIGEST, DIMS, np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_values_that_float16_cannot_hold_are_refused_and_leave_nothing(store: VectorStore, bad: float) -> None:
    rows = np.zeros((2, DIMS), np.float32)
    rows[1, 3] = bad

    with pytest.raises(BadVectors):
        store.put([hash_of(1), hash_of(2)], rows)

    assert len(store) == 0


def test_missing_vectors_are_named(store: VectorStore) -> None:
    store.put([hash_of(1)], rows_of([hash_of(1)]))

    with pytest.raises(VectorsMissing, match=f"1 of 2 .*{hash_of(2)}"):
        store.gather([hash_of(1), hash_of(2)])


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_predicting_in_chunks_is_one_matrix_product_in_the_asked_order(store: VectorStore, chunk: int) -> None:
    hashes = [hash_of(i) for i in range(100)]
    store.put(hashes, rows_of(hashes))
    asked = random.Random(chunk).choices(hashes, k=150)
    weights = np.random.default_rng(0).standard_normal((DIMS, 3)).astype(np.float32)

    predicted = predict_rows(lambda x: x @ weights, store, asked, chunk)

    np.testing.assert_allclose(predicted, rows_of(asked).astype(np.float32) @ weights, atol=1e-5)
    assert predicted.dtype == np.float32
    assert predict_rows(lambda x: x @ weights, store, [], chunk).shape == (0, 3)
    with pytest.raises(VectorsMissing):
        predict_rows(lambda x: x @ weights, store, [*asked, hash_of("unknown")], chunk)


def test_a_lookup_does_not_wait_for_a_writer(store: VectorStore) -> None:
    hashes = [hash_of(i) for i in range(20)]
    store.put(hashes, rows_of(hashes))
    other = VectorStore(store.path.parent, DIGEST, DIMS)

    with store.index.write():
        started = time.monotonic()
        assert (other.locate(hashes) >= 0).all()
        assert (store.locate(hashes) >= 0).all()

    assert time.monotonic() - started < 3  # SQLite's own patience is longer

"""What a scan leaves behind pays: the second scan, a new head over a million rows, and memory that does not grow."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from backend.learning.heads import Head
from backend.scoring.vectors import VectorStore
from benchmarks.record import row
from benchmarks.scan import empty_model
from benchmarks.scan.stage import DIMS, Stage
from benchmarks.scan.throughput import DELAY_MS

WARM_ITEMS = 50_000
MEMORY_ITEMS = (10_000, 60_000)
ROWS, CLASSES = 1_000_000, 10


def warm(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """List the prefix and compare validators, then encode what is new, which is nothing; in a fresh process.

    The first scan runs with the empty model: what the second one does has nothing to do with the network.
    """
    items = WARM_ITEMS if stage.items >= 5_000 else stage.items
    stage.upload(items)
    empty_model.put(stage)
    with stage.slow(DELAY_MS) as network:
        with stage.ours(network.endpoint) as ours:
            project = ours.make(items, seed=empty_model.SEED)
            first = ours.scan(project, network)
        print(f"  first scan, empty model: {first.seconds:.1f} s", flush=True)
        before, runs, parts = network.reads(), [], []
        for _ in range(repeat):
            with stage.ours(network.endpoint, is_cold=False) as ours:
                ours.ask("warm", project=project, count=0)
                listed = ours.ask("list_again", project=project)
                again = ours.ask("scan", project=project)
            runs.append(listed["seconds"] + again["seconds"])
            parts.append({"list_s": round(listed["seconds"], 3), "encode_s": round(again["seconds"], 3), **again})
        fetched = network.reads() - before
    yield row(
        "warm_scan_s", f"second scan of {items} items in an S3 prefix, nothing changed", runs, "s", target=3,
        items=items, objects_fetched=fetched, parts=parts,
    )  # fmt: skip


def rescore(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """A new head over every committed row, from the memory map, on two threads; the rows are in the page cache."""
    rows = ROWS if stage.items >= 1_000 else 50_000
    store = VectorStore(stage.folder / "million", "0" * 64, DIMS)
    hashes = _fill(store, rows)
    random = np.random.default_rng(1)
    runs, by_hash = [], []
    with threadpool_limits(2):
        for _ in range(repeat + 1):
            head = Head(
                tuple(map(str, range(CLASSES))), random.normal(size=DIMS), random.uniform(0.5, 2, DIMS),
                random.normal(size=(DIMS, CLASSES)) / 20, random.normal(size=CLASSES),
            )  # fmt: skip
            started = time.perf_counter()
            said = np.concatenate([head.predict(segment.vectors) for segment in store.segments()])
            runs.append(time.perf_counter() - started)
            started = time.perf_counter()
            again = head.predict(store.gather(hashes))
            by_hash.append(time.perf_counter() - started)
            assert np.allclose(said, again, atol=1e-5)
            print(f"  {rows} rows: {runs[-1]:.2f} s from the map, {by_hash[-1]:.2f} s by content hash", flush=True)
    store.close()
    yield row(
        "rescore_1m_s", f"a new head of {CLASSES} classes over {rows} × {DIMS} float16 rows of the memory map",
        runs[1:], "s", target=1.5, by_content_hash_s=[round(seconds, 3) for seconds in by_hash[1:]], rows=rows,
    )  # fmt: skip


def memory(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """The client's peak memory by size of the pool, with the empty model: the network is not in the client."""
    sizes = MEMORY_ITEMS if stage.items >= 5_000 else (stage.items // 6, stage.items)
    stage.upload(sizes[-1])
    empty_model.put(stage)
    peaks: dict[int, list[int]] = {size: [] for size in sizes}
    for _ in range(repeat):
        for size in sizes:
            with stage.slow(DELAY_MS) as network, stage.ours(network.endpoint) as ours:
                scan = ours.scan(ours.make(size, seed=empty_model.SEED), network)
            peaks[size].append(scan.peak_bytes)
            print(f"  {size} items: {scan.peak_bytes / 2**20:.0f} MiB at the most, {scan.rate:.0f}/s", flush=True)
    small, large = (peaks[size] for size in sizes)
    yield row(
        "peak_memory", f"peak memory of the client at {sizes[1]} items over that at {sizes[0]}",
        [big / little for little, big in zip(small, large, strict=True)], "ratio", target=1.10,
        peak_mib={str(size): [round(peak / 2**20, 1) for peak in found] for size, found in peaks.items()},
        limit_mib=1000,
    )  # fmt: skip


def _fill(store: VectorStore, rows: int) -> list[str]:
    """Random rows under made-up content hashes."""
    random = np.random.default_rng(0)
    hashes: list[str] = []
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        names = [random.bytes(32).hex() for _ in range(count)]
        store.put(names, random.standard_normal((count, DIMS), dtype=np.float32))
        hashes += names
    return hashes

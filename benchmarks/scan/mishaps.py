"""A scan that is killed, and a pool with objects that cannot be read."""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from backend.scoring.pipeline import ScanConfig
from backend.scoring.vectors import VectorStore
from benchmarks.record import row
from benchmarks.scan.companion import stolen_s
from benchmarks.scan.stage import CLOSED, MINIBATCH, MIXED, Ours, Stage
from benchmarks.scan.throughput import DELAY_MS, cold_scan

OF = 50  # objects of which four are bad
TIMEOUT_S, STALL_S = 5.0, 30.0


def killed(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """SIGKILL at a random moment, then the same scan again, against an undisturbed one of the same items."""
    stage.upload(stage.items)
    with stage.slow(DELAY_MS) as network, stage.ours(network.endpoint) as ours:
        project = ours.make(stage.items)
        ours.scan(project, network)
        digest, model = ours.warmed["digest"], ours.warmed["model"]
    hashes, undisturbed = _rows(stage.vectors(digest))
    runs, cosines, moments = [], [], []
    for number in range(repeat):
        moment = random.Random(number).uniform(0.15, 0.85)
        with stage.slow(DELAY_MS) as network:
            with stage.ours(network.endpoint) as ours:
                project = ours.make(stage.items)
                before = _inferences(stage, model)
                ours.companion.tell({"do": "scan", "project": project})
                store = stage.vectors(digest)
                while len(store) < moment * stage.items:
                    time.sleep(0.005)
                ours.companion.process.kill()
                ours.companion.process.wait()
                stored = len(store)
                store.close()
            with stage.ours(network.endpoint, is_cold=False) as ours:
                again = ours.ask("scan", project=project)
        found, rows = _rows(stage.vectors(digest))
        assert found == hashes, "another set of items"
        cosines.append(float(_cosine(rows, undisturbed).min()))
        runs.append((_inferences(stage, model) - before - len(hashes)) / MINIBATCH)
        moments.append({"stored_when_killed": stored, "encoded_after": again["encoded"]})
        print(f"  killed at {stored}: {runs[-1]:.2f} minibatches again, cosine at least {cosines[-1]:.6f}", flush=True)
    yield row(
        "kill_resume", "minibatches encoded again after a SIGKILL", runs, "minibatches",
        target=ScanConfig().in_flight, lowest_cosine=[round(cosine, 7) for cosine in cosines], cosine_target=0.9999,
        in_flight=ScanConfig().in_flight, kills=moments, items=stage.items,
    )  # fmt: skip


def broken(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Of every 50 objects one is broken, one missing, one forbidden, one stalls: the rest's rate, and the reasons.

    In a bucket of their own: beside the others, each content would be there twice, and encoded once.
    """
    groups = max(1, stage.items // OF)
    good = stage.files[: groups * (OF - 4)]
    stage.put(MIXED, {stage.key(path): path.read_bytes() for path in good})
    spare = stage.files[len(good) : len(good) + 3 * groups]
    stage.put(MIXED, {f"broken-{n}.jpg": spare[n].read_bytes()[:200] for n in range(groups)})
    stage.put(MIXED, {f"stalls-{n}.jpg": spare[groups + n].read_bytes() for n in range(groups)})
    stage.put(CLOSED, {f"forbidden-{n}.jpg": spare[2 * groups + n].read_bytes() for n in range(groups)})
    missing = [f"s3://{MIXED}/missing-{n}.jpg" for n in range(groups)]
    forbidden = [f"s3://{CLOSED}/forbidden-{n}.jpg" for n in range(groups)]
    runs, reasons, lone = [], {}, []
    for _ in range(repeat):
        undisturbed = cold_scan(stage, len(good))
        lone.append(undisturbed.rate_had)
        with stage.slow(DELAY_MS, "stalls-", STALL_S) as network, stage.ours(network.endpoint, as_reader=True) as ours:
            pool = {
                "source": "s3", "path": f"s3://{MIXED}", "allow_buckets": [MIXED, CLOSED],
                "s3_endpoint": network.endpoint,
            }  # fmt: skip
            project = ours.make(None, pool=pool)
            ours.ask("add", project=project, uris=[*missing, *forbidden])
            rest_s, scan_s = _until_stored(stage, ours, project, len(good))
            failed = ours.ask("failures", project=project)
        runs.append(1 - len(good) / rest_s / undisturbed.rate_had)
        reasons = _by_kind(failed["failed"])
        print(
            f"  the rest {len(good) / rest_s:.1f}/s, whole scan {scan_s:.1f} s, {failed['encoded']} encoded", flush=True
        )
        for kind, told in reasons.items():
            print(f"    {kind}: {told['count']} such as {told['example']!r}", flush=True)
        assert {kind: told["count"] for kind, told in reasons.items()} == dict.fromkeys(_KINDS, groups), reasons
    yield row(
        "broken_items", "how far the rest's rate falls where 4 of 50 objects are bad", runs, "share", target=0.10,
        undisturbed_per_s=[round(rate, 2) for rate in lone], reasons=reasons, items=groups * OF,
    )  # fmt: skip


_KINDS = ("broken", "missing", "forbidden", "stalls")


def _by_kind(failed: dict[str, str]) -> dict[str, dict[str, Any]]:
    told = {kind: [why for uri, why in failed.items() if f"/{kind}-" in uri] for kind in _KINDS}
    return {kind: {"count": len(why), "example": why[0] if why else ""} for kind, why in told.items()}


def _until_stored(stage: Stage, ours: Ours, project: int, count: int) -> tuple[float, float]:
    """Seconds until so many rows are committed, without those that were stolen, and until the scan ended."""
    store = stage.vectors(ours.warmed["digest"])
    reached: list[float] = []

    def had_s() -> float:
        return time.perf_counter() - stolen_s()

    started = had_s()

    def watch() -> None:
        while len(store) < count and not over.wait(0.02):
            pass
        reached.append(had_s() - started)

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = ours.ask("scan", project=project, fetch_timeout_s=TIMEOUT_S)
    over.set()
    watcher.join()
    store.close()
    return reached[0], answer["seconds"]


def _rows(store: VectorStore) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Every content hash of the store, sorted, and its vectors."""
    import sqlite3

    with sqlite3.connect(store.path / "index.db") as connection:
        hashes = sorted(key.hex() for (key,) in connection.execute("SELECT hash FROM vectors"))
    rows = store.gather(hashes).astype(np.float32)
    store.close()
    return hashes, rows


def _cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: np.ndarray[Any, Any] = (one * other).sum(axis=1) / lengths
    return cosines


def _inferences(stage: Stage, model: str) -> int:
    """Images that went through the model since it was loaded, by Triton's own count."""
    from tritonclient import grpc

    client = grpc.InferenceServerClient(stage.triton.url)
    try:
        (found,) = client.get_inference_statistics(model).model_stats
        return int(found.inference_count)
    finally:
        client.close()

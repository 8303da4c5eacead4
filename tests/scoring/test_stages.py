"""A scan says how fast its stages are, which one is the limit, and how long it will take."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend import metrics
from backend.errors import FetchFailed
from backend.scoring import stages
from backend.scoring.pipeline import Scan, ScanConfig, ScanItem, ScanReport
from backend.scoring.stages import STAGES, Speed, Stages, StageSpeed
from backend.scoring.vectors import VectorStore

DIGEST, DIMS, ITEMS = "a" * 64, 8, 60


class SlowEncoder:
    """Not a network: it takes as long as the test wants."""

    digest, dims, side = DIGEST, DIMS, 4

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def encode(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        threading.Event().wait(self._pause_s)
        return np.ones((len(inputs), DIMS), np.float32)


class SlowStore(VectorStore):
    pause_s = 0.0

    def put(self, hashes: Sequence[str], rows: NDArray[np.floating]) -> int:
        threading.Event().wait(self.pause_s)
        return super().put(hashes, rows)


def scan(tmp_path: Path, told: Stages, broken: Sequence[int] = (), **pauses_s: float) -> ScanReport:
    """A scan of which each stage takes so long."""

    async def fetch(uri: str) -> bytes:
        await asyncio.sleep(pauses_s.get("fetch", 0))
        if int(uri) in broken:
            raise FetchFailed(uri=uri, problem="it is not there")
        return uri.encode()

    def decode(data: bytes) -> NDArray[np.uint8]:
        threading.Event().wait(pauses_s.get("decode", 0))
        return np.zeros((4, 4, 3), np.uint8)

    store = SlowStore(tmp_path, DIGEST, DIMS)
    store.pause_s = pauses_s.get("store", 0)
    read: Callable[[str], Awaitable[bytes]] = fetch
    config = ScanConfig(fetches=4, decoders=2, minibatch=10, in_flight=2)
    encoder = SlowEncoder(pauses_s.get("encode", 0))
    ignore = lambda *_: None  # noqa: E731
    running = Scan(read, decode, encoder, store, ignore, ignore, ignore, None, config, told)
    return asyncio.run(running.run([ScanItem(n, str(n)) for n in range(ITEMS)], ITEMS))


@pytest.mark.parametrize(("stage", "pause_s"), [("fetch", 0.1), ("decode", 0.05), ("encode", 0.3), ("store", 0.3)])
def test_the_stage_that_holds_the_others_up_is_named(tmp_path: Path, stage: str, pause_s: float) -> None:
    report = scan(tmp_path, Stages(), **{stage: pause_s})

    assert report.speed.bottleneck == stage
    assert report.encoded == ITEMS
    assert {name: one.items_per_s > 0 for name, one in report.speed.stages.items()} == dict.fromkeys(STAGES, True)
    assert all(0 <= one.busy <= 1 for one in report.speed.stages.values())


def test_rates_and_failures_are_those_that_happened(tmp_path: Path) -> None:
    before = {
        name: metrics.REGISTRY.get_sample_value("nextbatch_scan_items_total", {"stage": name}) or 0 for name in STAGES
    }
    report = scan(tmp_path, Stages(), broken=range(5))

    for name in STAGES:
        through = ITEMS - 5
        assert report.speed.stages[name].items_per_s * report.seconds == pytest.approx(through), name
        counted = metrics.REGISTRY.get_sample_value("nextbatch_scan_items_total", {"stage": name})
        assert counted is not None
        assert counted - before[name] == through
    assert report.speed.failures == {"FetchFailed": 5}
    assert metrics.REGISTRY.get_sample_value("nextbatch_scan_failures_total", {"kind": "FetchFailed"}) >= 5
    assert metrics.REGISTRY.get_sample_value("nextbatch_scan_places", {"stage": "fetch"}) == 0


def test_what_lasts_counts_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told = Stages()
    with told.running(fetch=2, decode=1, encode=1, store=1), told.at_work("fetch"):
        clock[0] += 4
        half = told.look(items_left=10)
        with told.at_work("fetch", items=8):
            clock[0] += 4
        full = told.look(items_left=10)

    assert half.stages["fetch"] == StageSpeed(0, 0.5)
    assert (half.bottleneck, half.left_s) == ("fetch", None)
    assert full.stages["fetch"] == StageSpeed(1, 0.75)
    assert full.left_s == 10


def test_old_times_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told = Stages()
    with told.running(fetch=1, decode=1, encode=1, store=1):
        for second in range(40):
            with told.at_work("fetch", items=100 if second < 20 else 10):
                clock[0] += 1
            speed = told.look(items_left=100)

    assert speed.stages["fetch"].items_per_s == 10
    assert speed.left_s == 100 / 10
    assert len(told._marks) <= stages.WINDOW_S + 2


def test_scans_beside_each_other_are_one_and_travel_as_json() -> None:
    one = Speed({"fetch": StageSpeed(100, 0.2), "encode": StageSpeed(90, 1.0)}, "encode", 5, {"FetchFailed": 1})
    other = Speed({"fetch": StageSpeed(50, 0.4), "encode": StageSpeed(60, 0.8)}, "encode", 9, {"ImageBroken": 2})

    both = Speed.of_many([one, Speed.from_dict(other.as_dict()), Speed.from_dict({})], items_left=300)

    assert both.stages["fetch"].items_per_s == 150
    assert both.stages["fetch"].busy == pytest.approx(0.3)
    assert both.stages["encode"] == StageSpeed(150, 0.9)
    assert (both.bottleneck, both.left_s) == ("encode", 2)
    assert both.failures == {"FetchFailed": 1, "ImageBroken": 2}
    assert Speed.from_dict(one.as_dict()) == one
    assert "encode is the limit" in str(both)

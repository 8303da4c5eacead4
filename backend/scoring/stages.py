"""How fast each stage of a scan is, which one holds the others up, and how long it will take."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from backend import metrics

WINDOW_S = 10.0  # rates are those of so many seconds: long enough to be steady, short enough to see a change
STAGES = ("fetch", "decode", "encode", "store")


@dataclass(frozen=True)
class StageSpeed:
    """`busy` is the share of the stage's places that were at work, from 0 to 1: near 1 it is the limit."""

    items_per_s: float
    busy: float


@dataclass(frozen=True)
class Speed:
    """A scan at one moment. `bottleneck` is empty and `left_s` None while nobody can tell."""

    stages: Mapping[str, StageSpeed] = field(default_factory=dict)
    bottleneck: str = ""
    left_s: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the database and for JSON; rounded to what can be told."""
        return {
            "stages": {
                name: {"items_per_s": round(one.items_per_s, 1), "busy": round(one.busy, 2)}
                for name, one in self.stages.items()
            },
            "bottleneck": self.bottleneck,
            "left_s": None if self.left_s is None else round(self.left_s, 1),
            "failures": dict(self.failures),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Speed":
        """What `as_dict` gave; what is missing is unknown."""
        stages = {name: StageSpeed(**one) for name, one in facts.get("stages", {}).items()}
        return cls(stages, facts.get("bottleneck", ""), facts.get("left_s"), facts.get("failures", {}))

    @classmethod
    def of_many(cls, scans: Iterable["Speed"], items_left: int) -> "Speed":
        """Scans that run beside each other, as one: rates add up, shares are averaged."""
        scans = list(scans)
        failures: Counter[str] = Counter()
        stages: dict[str, StageSpeed] = {}
        for scan in scans:
            failures.update(scan.failures)
        for name in STAGES:
            found = [scan.stages[name] for scan in scans if name in scan.stages]
            if found:
                rate = sum(one.items_per_s for one in found)
                stages[name] = StageSpeed(rate, sum(one.busy for one in found) / len(found))
        return cls(stages, _busiest(stages), _left_s(stages, items_left), dict(failures))

    def __str__(self) -> str:
        rate = self.stages["store"].items_per_s if "store" in self.stages else 0.0
        shares = ", ".join(f"{name} {one.busy:.0%}" for name, one in self.stages.items())
        parts = [f"{rate:.0f} items/s"]
        if self.bottleneck:
            parts.append(f"{self.bottleneck} is the limit (busy: {shares})")
        if self.left_s is not None:
            parts.append(f"{_duration(self.left_s)} left")
        if self.failures:
            parts.append("failed: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.failures.items())))
        return "; ".join(parts)


class Stages:
    """Counts what the stages of one scan do; may be called from many threads, some microseconds a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = {name: _Stage() for name in STAGES}
        self._failures: Counter[str] = Counter()
        self._marks: deque[_Mark] = deque()

    @contextmanager
    def running(self, **places: int) -> Iterator[None]:
        """A scan runs in which so much of each stage can be at work at once."""
        for name, count in places.items():
            self._stages[name].places = count
            metrics.scan_places.labels(name).inc(count)
        self._marks.append(self._mark())
        try:
            yield
        finally:
            for name, count in places.items():
                metrics.scan_places.labels(name).dec(count)

    def at_work(self, stage: str, items: int = 1) -> "_Work":
        """Around the work: these items are in that stage; they count as through it unless it raises."""
        return _Work(self._lock, self._stages[stage], items)

    def failed(self, kind: str) -> None:
        """An item failed; `kind` is a class of errors, of which there are few."""
        with self._lock:
            self._failures[kind] += 1
        metrics.scan_failures.labels(kind).inc()

    def look(self, items_left: int) -> Speed:
        """The speed over the last `WINDOW_S`. Called about once a second."""
        self._marks.append(self._mark())
        while len(self._marks) > 2 and self._marks[-1].at - self._marks[1].at >= WINDOW_S:
            self._marks.popleft()
        return self._between(self._marks[0], self._marks[-1], items_left)

    def whole(self, since: float, until: float) -> Speed:
        """The speed of the whole scan, which began at `since` on the monotonic clock and ended at `until`."""
        nothing = _Mark(since, dict.fromkeys(STAGES, (0, 0.0)))
        return self._between(nothing, replace(self._mark(), at=until), items_left=0)

    def _mark(self) -> "_Mark":
        with self._lock:
            for name, one in self._stages.items():
                busy_s, items = one.untold()
                metrics.scan_busy_s.labels(name).inc(busy_s)
                metrics.scan_items.labels(name).inc(items)
            return _Mark(time.monotonic(), {name: (one.items, one.busy_s) for name, one in self._stages.items()})

    def _between(self, first: "_Mark", last: "_Mark", items_left: int) -> Speed:
        seconds = max(last.at - first.at, 1e-9)
        stages = {}
        for name, one in self._stages.items():
            (items_before, busy_before), (items, busy_s) = first.counts[name], last.counts[name]
            busy = (busy_s - busy_before) / seconds / one.places
            stages[name] = StageSpeed((items - items_before) / seconds, min(1.0, busy))
        with self._lock:
            failures = dict(self._failures)
        return Speed(stages, _busiest(stages), _left_s(stages, items_left), failures)


class _Stage:
    """Counts of one stage; the seconds at work are an integral, so that a long call counts while it lasts."""

    def __init__(self) -> None:
        self.items = 0
        self.busy_s = 0.0
        self.places = 1
        self._at_work = 0
        self._changed_at = time.monotonic()
        self._told = (0.0, 0)

    def change(self, by: int) -> None:
        """So many more are at work from now on."""
        now = time.monotonic()
        self.busy_s += self._at_work * (now - self._changed_at)
        self._at_work += by
        self._changed_at = now

    def untold(self) -> tuple[float, int]:
        """Seconds at work, and items through, that were not told of before."""
        self.change(0)
        (busy_s, items), self._told = self._told, (self.busy_s, self.items)
        return self.busy_s - busy_s, self.items - items


class _Work:
    """Around the work of a stage on some items. A class: one in the form of a generator takes twice as long, and every
    item of a pool passes here."""

    def __init__(self, lock: threading.Lock, stage: _Stage, items: int) -> None:
        self._lock = lock
        self._stage = stage
        self._items = items

    def __enter__(self) -> None:
        with self._lock:
            self._stage.change(+1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stage.change(-1)
            if kind is None:
                self._stage.items += self._items


@dataclass(frozen=True)
class _Mark:
    at: float
    counts: Mapping[str, tuple[int, float]]


def _busiest(stages: Mapping[str, StageSpeed]) -> str:
    """Encoding and storing share their places: of the two, the one that holds more of them."""
    if not stages or max(one.busy for one in stages.values()) == 0:
        return ""
    shares = {name: one.busy for name, one in stages.items()}
    if "encode" in shares and "store" in shares:
        later = max("encode", "store", key=lambda name: shares[name])
        shares[later] = shares["encode"] + shares["store"]
    return max(shares, key=lambda name: shares[name])


def _left_s(stages: Mapping[str, StageSpeed], items_left: int) -> float | None:
    """By the items that are fetched: all of them are, also those that are found stored, or fail later."""
    rate = stages["fetch"].items_per_s if "fetch" in stages else 0.0
    return items_left / rate if rate > 0 else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

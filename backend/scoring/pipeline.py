"""The scan: fetch → hash → decode → minibatch → encode → store, as stages with bounded queues.

What waits between two stages is bounded, so memory does not depend on the pool. An item that fails is reported with
its reason and the rest goes on; a stage that fails as a whole (the encoder or the store is away) is tried again with
growing pauses, and back-pressure holds the others meanwhile.
"""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.errors import NextbatchError

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class ScanItem:
    """An item to encode: `key` is the caller's name for it."""

    key: int
    uri: str


@dataclass(frozen=True)
class ScanConfig:
    """How much of each stage runs at once. The defaults hide 20 ms of storage latency and feed two cores."""

    fetches: int = 64
    fetch_timeout_s: float = 60.0
    decoders: int = 2
    minibatch: int = 32
    in_flight: int = 4
    linger_s: float = 0.05  # how long an incomplete minibatch waits for more
    outage_s: float = 600.0  # how long an encoder or store that is away is waited for


@dataclass(frozen=True)
class ScanReport:
    """What a scan did. `encoded` went through the encoder, `found` were in the store already."""

    encoded: int
    found: int
    failed: int
    minibatches: int
    seconds: float
    is_cancelled: bool


class Encoder(Protocol):
    def encode(self, images: Pixels) -> NDArray[np.float32]: ...


class Store(Protocol):
    def locate(self, hashes: Sequence[str]) -> NDArray[np.int64]: ...
    def put(self, hashes: Sequence[str], rows: NDArray[np.float32]) -> int: ...


@dataclass(frozen=True)
class _Decoded:
    key: int
    content_hash: str
    pixels: Pixels


class Scan:
    """One scan. `run` blocks until it is through, or within a second after `cancel` is set.

    fetch: URI to bytes. decode: bytes to (h, w, 3) uint8. on_done: content hash by key, for rows that are committed.
    on_failure: a reason by key. progress: (done, total), about once a second. Callbacks run in the scan's thread.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        decode: Callable[[bytes], Pixels],
        encoder: Encoder,
        store: Store,
        on_done: Callable[[dict[int, str]], None],
        on_failure: Callable[[dict[int, str]], None],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        cancel: threading.Event | None = None,
        config: ScanConfig | None = None,
    ) -> None:
        self._fetch = fetch
        self._decode = decode
        self._encoder = encoder
        self._store = store
        self._on_done = on_done
        self._on_failure = on_failure
        self._progress = progress
        self._cancel = cancel or threading.Event()
        self._config = config or ScanConfig()
        self._encoded = self._found = self._failed = self._minibatches = 0
        self._failures: dict[int, str] = {}

    async def run(self, items: Iterable[ScanItem], total: int = 0) -> ScanReport:
        """Scan all items; what it raises is an outage that outlasted `outage_s`, or an error of a callback."""
        started = time.monotonic()
        config = self._config
        self._total = total
        self._decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decode")
        self._encoders = ThreadPoolExecutor(config.in_flight, thread_name_prefix="encode")
        waiting: asyncio.Queue[ScanItem | None] = asyncio.Queue(config.fetches)
        decoded: asyncio.Queue[_Decoded | None] = asyncio.Queue(config.minibatch * config.in_flight)

        async def run_stages() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(items, waiting))
                group.create_task(self._fetch_all(waiting, decoded))
                group.create_task(self._encode_all(decoded))

        stages = asyncio.create_task(run_stages())
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({stages, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not stages.done():
                stages.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await _first_cause(stages)
        finally:
            watch.cancel()
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._encoders.shutdown(wait=False, cancel_futures=True)
            self._report_failures()
        self._progress(self._done, max(self._total, self._done))
        return ScanReport(
            self._encoded,
            self._found,
            self._failed,
            self._minibatches,
            time.monotonic() - started,
            self._cancel.is_set(),
        )

    @property
    def _done(self) -> int:
        return self._encoded + self._found + self._failed

    async def _watch(self) -> None:
        """Report about once a second; end when the scan is cancelled."""
        beats = 0
        while not self._cancel.is_set():
            await asyncio.sleep(0.1)
            beats += 1
            if beats % 10 == 0:
                self._report_failures()
                self._progress(self._done, max(self._total, self._done))

    async def _feed(self, items: Iterable[ScanItem], waiting: asyncio.Queue[ScanItem | None]) -> None:
        for item in items:
            await waiting.put(item)
        for _ in range(self._config.fetches):
            await waiting.put(None)

    async def _fetch_all(
        self, waiting: asyncio.Queue[ScanItem | None], decoded: asyncio.Queue[_Decoded | None]
    ) -> None:
        async def fetcher() -> None:
            while (item := await waiting.get()) is not None:
                await self._take(item, decoded)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._config.fetches):
                group.create_task(fetcher())
        await decoded.put(None)

    async def _take(self, item: ScanItem, decoded: asyncio.Queue[_Decoded | None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(self._fetch(item.uri), self._config.fetch_timeout_s)
            content_hash = hashlib.sha256(data).hexdigest()
            if self._store.locate([content_hash])[0] >= 0:
                self._found += 1
                self._on_done({item.key: content_hash})
                return
            pixels = await loop.run_in_executor(self._decoders, self._decode, data)
        except NextbatchError as error:
            self._fail(item.key, str(error))
        except TimeoutError:
            self._fail(item.key, f"it was not read within {self._config.fetch_timeout_s:.0f} s")
        else:
            await decoded.put(_Decoded(item.key, content_hash, pixels))

    async def _encode_all(self, decoded: asyncio.Queue[_Decoded | None]) -> None:
        """Gather images of one shape into minibatches and keep `in_flight` of them with the encoder."""
        open_: dict[tuple[int, ...], list[_Decoded]] = {}
        flying: set[asyncio.Task[None]] = set()

        async def fly(batch: list[_Decoded]) -> None:
            if len(flying) >= self._config.in_flight:
                done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                flying.difference_update(done)
            flying.add(asyncio.ensure_future(self._encode(batch)))

        try:
            while True:
                try:
                    image = await asyncio.wait_for(decoded.get(), self._config.linger_s if open_ else None)
                except TimeoutError:
                    for shape in list(open_):
                        await fly(open_.pop(shape))
                    continue
                if image is None:
                    break
                batch = open_.setdefault(image.pixels.shape, [])
                batch.append(image)
                if len(batch) == self._config.minibatch:
                    await fly(open_.pop(image.pixels.shape))
            for batch in open_.values():
                await fly(batch)
            if flying:
                await asyncio.gather(*flying)
        finally:
            for task in flying:
                task.cancel()

    async def _encode(self, batch: list[_Decoded]) -> None:
        images = np.stack([image.pixels for image in batch])
        hashes = [image.content_hash for image in batch]
        try:
            rows = await self._persist(lambda: self._encoder.encode(images))
        except NextbatchError as error:
            if error.is_passing:
                raise
            await self._encode_alone(batch, str(error))
            return
        await self._persist(lambda: self._store.put(hashes, rows))
        self._encoded += len(batch)
        self._minibatches += 1
        self._on_done({image.key: image.content_hash for image in batch})

    async def _encode_alone(self, batch: list[_Decoded], reason: str) -> None:
        """The encoder refused these images together: one of them may be at fault, and only it shall fail."""
        if len(batch) == 1:
            self._fail(batch[0].key, reason)
            return
        for image in batch:
            await self._encode([image])

    async def _persist(self, act: Callable[[], T]) -> T:
        """Do it in a thread; while the service behind it is away, wait and try again."""
        deadline = time.monotonic() + self._config.outage_s
        pause = 0.2
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._encoders, act)
            except NextbatchError as error:
                if not error.is_passing or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    def _fail(self, key: int, reason: str) -> None:
        self._failed += 1
        self._failures[key] = reason

    def _report_failures(self) -> None:
        failures, self._failures = self._failures, {}
        if failures:
            self._on_failure(failures)


async def _first_cause(stages: "asyncio.Task[None]") -> None:
    """Wait for the stages; raise the one error behind nested groups of errors."""
    try:
        await stages
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None

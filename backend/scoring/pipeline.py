"""The scan: fetch → hash → decode → minibatch → encode → store, as stages with bounded queues.

What waits between two stages is bounded, so memory does not depend on the pool. An item that fails is reported with
its reason and the rest goes on; a stage that fails as a whole (the source, the encoder or the store is away) is tried
again with growing pauses, and back-pressure holds the others meanwhile.
"""

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from backend.errors import NextbatchError
from backend.scoring.encoder import Encoder
from backend.scoring.outage import Reader, SourceAway, until_back

log = structlog.get_logger()

BEAT_S = 0.1  # how soon a cancelled scan notices
REPORT_BEATS = 5  # what is done is told every half second: one transaction of the caller, not one an item
MANY = 8  # so many images that are refused one by one, and none that is not, are the encoder's fault
OPEN_MINIBATCHES = 4  # images of rare shapes that wait for company, in minibatches

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
    outage_s: float = 600.0  # how long a source, encoder or store that is away is waited for


@dataclass(frozen=True)
class ScanReport:
    """What a scan did. `encoded` went through the encoder, `found` were in the store already."""

    encoded: int
    found: int
    failed: int
    minibatches: int
    seconds: float
    is_cancelled: bool


class Store(Protocol):
    def locate(self, hashes: Sequence[str]) -> NDArray[np.int64]: ...
    def put(self, hashes: Sequence[str], rows: NDArray[np.float32]) -> int: ...


@dataclass(frozen=True)
class _Decoded:
    """An image on its way to the encoder; `outcome` will be None when it is stored, else why it was not."""

    key: int
    content_hash: str
    pixels: Pixels
    outcome: "Future[str | None]"


class Scan:
    """One scan. `run` ends when it is through, or within a second after `cancel` is set.

    fetch: URI to bytes. decode: bytes to (h, w, 3) uint8, called in threads. on_done: content hash by key, for rows
    that are committed. on_failure: a reason by key. progress: (done, total), about once a second. Callbacks run in
    the scan's thread, one at a time. A scan that was killed, or cancelled, leaves a sound store: the next one
    finds what was stored and encodes the rest.
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
        self._config = config or ScanConfig()
        self._reader = Reader(fetch, self._config.fetch_timeout_s, self._config.outage_s)
        self._decode = decode
        self._encoder = encoder
        self._store = store
        self._on_done = on_done
        self._on_failure = on_failure
        self._progress = progress
        self._cancel = cancel or threading.Event()
        self._encoded = self._found = self._failed = self._minibatches = 0
        self._finished: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        self._claims: dict[str, Future[str | None]] = {}  # contents under way: doubles wait for the first

    async def run(self, items: Iterable[ScanItem], total: int = 0) -> ScanReport:
        """Scan all items; what it raises is an outage that outlasted `outage_s`, or an error of a callback."""
        started = time.monotonic()
        self._total = total
        self._decoders = ThreadPoolExecutor(self._config.decoders, thread_name_prefix="decode")
        self._encoders = ThreadPoolExecutor(self._config.in_flight, thread_name_prefix="encode")
        stages = asyncio.create_task(self._run_stages(items))
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({stages, watch}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():  # cancelled, or a callback failed
                stages.cancel()
                await asyncio.wait({stages})
                watch.result()
            if not stages.cancelled():
                _raise_cause(stages.exception())
        finally:
            for task in (stages, watch):
                task.cancel()
            # Not waited for: a request to the encoder that is under way may take longer than a second.
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._encoders.shutdown(wait=False, cancel_futures=True)
            self._report()
        self._progress(self._done, max(self._total, self._done))
        seconds = time.monotonic() - started
        return ScanReport(self._encoded, self._found, self._failed, self._minibatches, seconds, self._cancel.is_set())

    @property
    def _done(self) -> int:
        return self._encoded + self._found + self._failed

    async def _watch(self) -> None:
        """Report what is done; end when the scan is cancelled."""
        beats = 0
        while not self._cancel.is_set():
            await asyncio.sleep(BEAT_S)
            beats += 1
            if beats % REPORT_BEATS == 0:
                self._report()
            if beats % (2 * REPORT_BEATS) == 0:
                self._progress(self._done, max(self._total, self._done))

    async def _run_stages(self, items: Iterable[ScanItem]) -> None:
        waiting: asyncio.Queue[ScanItem | None] = asyncio.Queue(self._config.fetches)
        decoded: asyncio.Queue[_Decoded | None] = asyncio.Queue(self._config.minibatch * self._config.in_flight)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed(items, waiting))
            group.create_task(self._fetch_all(waiting, decoded))
            group.create_task(self._encode_all(decoded))

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
        """Read an item and find out what it is: stored, under way, broken, or new."""
        try:
            data = await self._reader.read(item.uri)
            content_hash = await self._in_thread(self._decoders, lambda: hashlib.sha256(data).hexdigest())
            if (await self._until_back(self._decoders, lambda: self._store.locate([content_hash])))[0] >= 0:
                self._found += 1
                self._finished[item.key] = content_hash
                return
            outcome, is_first = self._claim(content_hash)
            if is_first:
                try:
                    pixels = await self._in_thread(self._decoders, lambda: self._decode(data))
                except Exception as error:
                    self._settle(content_hash, _reason(error))
                    raise
        except (SourceAway, sqlite3.Error):
            raise
        except TimeoutError:
            self._fail(item.key, f"it was not read within {self._config.fetch_timeout_s:g} s")
        except Exception as error:
            self._fail(item.key, _reason(error))
        else:
            if is_first:
                await decoded.put(_Decoded(item.key, content_hash, pixels, outcome))
            else:
                await self._follow(item.key, content_hash, outcome)

    async def _follow(self, key: int, content_hash: str, outcome: "Future[str | None]") -> None:
        """The same bytes are under way for another item: share what becomes of them."""
        reason = await asyncio.wrap_future(outcome)
        if reason is None:
            self._found += 1
            self._finished[key] = content_hash
        else:
            self._fail(key, reason)

    def _claim(self, content_hash: str) -> "tuple[Future[str | None], bool]":
        is_first = content_hash not in self._claims
        return self._claims.setdefault(content_hash, Future()), is_first

    def _settle(self, content_hash: str, reason: str | None) -> None:
        self._claims.pop(content_hash).set_result(reason)

    async def _encode_all(self, decoded: asyncio.Queue[_Decoded | None]) -> None:
        """Gather images of one shape into minibatches and keep `in_flight` of them with the encoder."""
        open_: dict[tuple[int, ...], list[_Decoded]] = {}
        places = asyncio.Semaphore(self._config.in_flight)

        async def fly(batch: list[_Decoded]) -> None:
            try:
                await self._encode(batch)
            finally:
                places.release()

        async with asyncio.TaskGroup() as flying:

            async def launch(shape: tuple[int, ...]) -> None:
                await places.acquire()
                flying.create_task(fly(open_.pop(shape)))

            while True:
                try:
                    async with asyncio.timeout(self._config.linger_s if open_ else None):
                        image = await decoded.get()
                except TimeoutError:
                    for shape in list(open_):
                        await launch(shape)
                    continue
                if image is None:
                    break
                batch = open_.setdefault(image.pixels.shape, [])
                batch.append(image)
                if len(batch) == self._config.minibatch:
                    await launch(image.pixels.shape)
                elif sum(map(len, open_.values())) >= OPEN_MINIBATCHES * self._config.minibatch:
                    await launch(max(open_, key=lambda shape: len(open_[shape])))
            for shape in list(open_):
                await launch(shape)

    async def _encode(self, batch: list[_Decoded]) -> None:
        try:
            await self._embed(batch)
        except NextbatchError as error:
            if error.is_passing:
                raise
            refused = [(batch[0], error)] if len(batch) == 1 else await self._encode_alone(batch)
            if len(refused) == len(batch) >= MANY:
                raise
            for image, reason in refused:
                self._settle(image.content_hash, str(reason))
                self._fail(image.key, str(reason))

    async def _encode_alone(self, batch: list[_Decoded]) -> list[tuple[_Decoded, NextbatchError]]:
        """They were refused together: one of them may be at fault, and only it shall fail. Returns those refused."""
        refused = []
        for image in batch:
            try:
                await self._embed([image])
            except NextbatchError as error:
                if error.is_passing:
                    raise
                refused.append((image, error))
        return refused

    async def _embed(self, batch: list[_Decoded]) -> None:
        """Encode a minibatch and store its rows."""
        images = np.stack([image.pixels for image in batch])
        hashes = [image.content_hash for image in batch]
        rows = await self._until_back(self._encoders, lambda: self._encoder.encode(images))
        await self._until_back(self._encoders, lambda: self._store.put(hashes, rows))
        self._encoded += len(batch)
        self._minibatches += 1
        for image in batch:
            self._finished[image.key] = image.content_hash
            self._settle(image.content_hash, None)

    async def _in_thread(self, pool: ThreadPoolExecutor, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, act)

    async def _until_back(self, pool: ThreadPoolExecutor, act: Callable[[], T]) -> T:
        return await until_back(lambda: self._in_thread(pool, act), self._config.outage_s)

    def _fail(self, key: int, reason: str) -> None:
        self._failed += 1
        self._failures[key] = reason

    def _report(self) -> None:
        """Tell the caller what was done since the last time."""
        finished, self._finished = self._finished, {}
        failures, self._failures = self._failures, {}
        if finished:
            self._on_done(finished)
        if failures:
            self._on_failure(failures)


def _reason(error: Exception) -> str:
    """Why an item failed. Our own errors say it in a sentence; of others the type is told too."""
    if isinstance(error, NextbatchError):
        return str(error)
    log.warning("scan.unexpected", exc_info=error)
    return f"{type(error).__name__}: {error}"[:300]


def _raise_cause(error: BaseException | None) -> None:
    """Raise the one error behind nested groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SourceAway):
        raise error.cause from None
    if error is not None:
        raise error

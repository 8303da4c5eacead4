"""The scan: fetch → hash → decode → minibatch → encode → store, as stages with bounded queues.

What waits between two stages is bounded, so memory does not depend on the pool. An item that fails is reported with
its reason and the rest goes on; a stage that fails as a whole (the source, the encoder or the store is away) is tried
again with growing pauses, and back-pressure holds the others meanwhile.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from backend.errors import NextbatchError
from backend.logs import carried
from backend.scoring.encoder import Encoder, Inputs
from backend.scoring.minibatches import Decoded, Minibatcher, Store
from backend.scoring.opening import Opened, Opener, reason_of
from backend.scoring.outage import Reader, SourceAway, until_back
from backend.scoring.places import Place, Places
from backend.scoring.stages import Speed, Stages

BEAT_S = 0.1  # how soon a cancelled scan notices
REPORT_BEATS = 5  # what is done is told every half second: one transaction of the caller, not one an item

Outcome = asyncio.Future[str | None]  # None when the content is stored, else why it is not


@dataclass(frozen=True)
class ScanItem:
    """An item to encode: `key` is the caller's name for it."""

    key: int
    uri: str


@dataclass(frozen=True)
class ScanConfig:
    """How much of each stage runs at once. The defaults hide 20 ms of storage latency and feed two cores."""

    fetches: int = 64
    fetch_timeout_s: float = 30.0
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
    speed: Speed


class Scan:
    """One scan. `run` ends when it is through, or within a second after `cancel` is set.

    fetch: URI to bytes. decode: bytes to the array that travels to the encoder, called in threads. on_done: content
    hash by key, for rows that are committed. on_failure: a reason by key. progress: (done, total), about once a second.
    Callbacks run in the scan's thread, one at a time. A scan that was killed, or cancelled, leaves a sound store: the
    next one finds what was stored and encodes the rest.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        decode: Callable[[bytes], Inputs],
        encoder: Encoder,
        store: Store,
        on_done: Callable[[dict[int, str]], None],
        on_failure: Callable[[dict[int, str]], None],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        cancel: threading.Event | None = None,
        config: ScanConfig | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._config = config or ScanConfig()
        self._stages = stages or Stages()
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
        self._claims: dict[str, Outcome] = {}  # contents under way: doubles wait for the first

    async def run(self, items: Iterable[ScanItem], total: int = 0) -> ScanReport:
        """Scan all items; what it raises is an outage that outlasted `outage_s`, or an error of a callback."""
        started = time.monotonic()
        self._total = total
        self._decoders = ThreadPoolExecutor(self._config.decoders, "decode", carried())
        self._encoders = ThreadPoolExecutor(self._config.in_flight, "encode", carried())
        self._opener = Opener(
            self._decode, self._store, self._claims, self._decoders, self._config.decoders, self._stages
        )
        self._minibatcher = Minibatcher(
            self._encoder, self._store, self._encoders, self._config, self._stored, self._refused, self._stages
        )
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
        ended = time.monotonic()
        speed = self._stages.whole(started, ended)
        counts = (self._encoded, self._found, self._failed, self._minibatches)
        return ScanReport(*counts, ended - started, self._cancel.is_set(), speed)

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
        decoded: asyncio.Queue[Decoded | None] = asyncio.Queue(self._config.minibatch * self._config.in_flight)
        places = self._config.in_flight  # a minibatch that is encoded keeps its place until it is stored
        running = self._stages.running(
            fetch=self._config.fetches, decode=self._config.decoders, encode=places, store=places
        )
        with running:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(items, waiting))
                group.create_task(self._fetch_all(waiting, decoded))
                group.create_task(self._minibatcher.run(decoded))

    async def _feed(self, items: Iterable[ScanItem], waiting: asyncio.Queue[ScanItem | None]) -> None:
        for item in items:
            await waiting.put(item)
        await waiting.put(None)

    async def _fetch_all(self, waiting: asyncio.Queue[ScanItem | None], decoded: asyncio.Queue[Decoded | None]) -> None:
        places = Places(self._config.fetches)
        async with asyncio.TaskGroup() as group:
            while (item := await waiting.get()) is not None:
                group.create_task(self._take(item, await places.take(), decoded))
        await decoded.put(None)

    async def _take(self, item: ScanItem, place: Place, decoded: asyncio.Queue[Decoded | None]) -> None:
        try:
            await self._read(item, place, decoded)
        finally:
            place.give_back()

    async def _read(self, item: ScanItem, place: Place, decoded: asyncio.Queue[Decoded | None]) -> None:
        """Read an item and find out what it is: stored, under way, broken, or new."""
        opener, outage_s = self._opener, self._config.outage_s
        try:
            with self._stages.at_work("fetch"), place:
                data = await self._reader.read(item.uri)
        except SourceAway:
            raise
        except TimeoutError as error:
            self._fail(item.key, f"it was not read within {self._config.fetch_timeout_s:g} s", type(error).__name__)
            return
        except Exception as error:
            self._fail(item.key, reason_of(error), type(error).__name__)
            return
        while not await self._sort(item.key, await until_back(lambda: opener.open(data), outage_s), decoded):
            pass

    async def _sort(self, key: int, opened: Opened, decoded: asyncio.Queue[Decoded | None]) -> bool:
        """Send the item where it belongs; False where equal content was under way and ended meanwhile: look again."""
        content_hash = opened.content_hash
        if opened.reason is not None:
            self._fail(key, opened.reason, opened.kind)
        elif opened.is_stored:
            self._found += 1
            self._finished[key] = content_hash
        elif (outcome := self._claims.get(content_hash)) is not None:
            await self._follow(key, content_hash, outcome)
        elif opened.inputs is not None:
            self._claims[content_hash] = asyncio.get_running_loop().create_future()
            await decoded.put(Decoded(key, content_hash, opened.inputs))
        else:
            return False
        return True

    async def _follow(self, key: int, content_hash: str, outcome: Outcome) -> None:
        """The same bytes are under way for another item: share what becomes of them."""
        reason = await asyncio.shield(outcome)
        if reason is None:
            self._found += 1
            self._finished[key] = content_hash
        else:
            self._fail(key, reason, "SameContent")

    def _settle(self, content_hash: str, reason: str | None) -> None:
        self._claims.pop(content_hash).set_result(reason)

    def _stored(self, minibatch: Sequence[Decoded]) -> None:
        self._encoded += len(minibatch)
        self._minibatches += 1
        for item in minibatch:
            self._finished[item.key] = item.content_hash
            self._settle(item.content_hash, None)

    def _refused(self, item: Decoded, error: NextbatchError) -> None:
        self._settle(item.content_hash, str(error))
        self._fail(item.key, str(error), type(error).__name__)

    def _fail(self, key: int, reason: str, kind: str) -> None:
        self._failed += 1
        self._stages.failed(kind)
        self._failures[key] = reason

    def _report(self) -> None:
        """Tell the caller what was done since the last time."""
        finished, self._finished = self._finished, {}
        failures, self._failures = self._failures, {}
        if finished:
            self._on_done(finished)
        if failures:
            self._on_failure(failures)


def _raise_cause(error: BaseException | None) -> None:
    """Raise the one error behind nested groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SourceAway):
        raise error.cause from None
    if error is not None:
        raise error

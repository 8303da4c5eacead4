"""Items are opened in threads: hashed, looked up, and decoded where they are new."""

import asyncio
import hashlib
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from backend.errors import NextbatchError
from backend.scoring.encoder import Inputs
from backend.scoring.minibatches import Store
from backend.scoring.stages import Stages

log = structlog.get_logger()

TOGETHER = 16  # at most so many items in one visit to a thread: a visit costs more than decoding a small image


@dataclass(frozen=True)
class Opened:
    """What an item's bytes are: broken for a reason, stored, new and decoded, or (none of these) under way."""

    content_hash: str
    is_stored: bool = False
    inputs: Inputs | None = None
    reason: str | None = None
    kind: str = ""


class Opener:
    """Opens what waits, several items a visit, in at most `places` threads at once. `claims`: contents under way."""

    def __init__(
        self,
        decode: Callable[[bytes], Inputs],
        store: Store,
        claims: Container[str],
        threads: Executor,
        places: int,
        stages: Stages,
    ) -> None:
        self._decode = decode
        self._store = store
        self._claims = claims
        self._threads = threads
        self._free = places
        self._stages = stages
        self._waiting: list[tuple[bytes, asyncio.Future[Opened]]] = []
        self._visits: set[asyncio.Task[None]] = set()

    def open(self, data: bytes) -> asyncio.Future[Opened]:
        """What these bytes are. Raises what the store raises."""
        opened: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, opened))
        if self._free:
            self._free -= 1
            visit = asyncio.create_task(self._visit())
            self._visits.add(visit)
            visit.add_done_callback(self._visits.discard)
        return opened

    async def _visit(self) -> None:
        """Keep one thread busy for as long as something waits."""
        while self._waiting:
            together, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            blobs = [data for data, _ in together]
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._threads, self._open, blobs)
            except Exception as error:
                for _, opened in together:
                    if not opened.done():
                        opened.set_exception(error)
            else:
                for (_, opened), one in zip(together, found, strict=True):
                    if not opened.done():  # the scan was cancelled meanwhile
                        opened.set_result(one)
        # In this very step: what is opened before the task is seen to be done would wait for nobody.
        self._free += 1

    def _open(self, blobs: Sequence[bytes]) -> list[Opened]:
        with self._stages.at_work("decode", len(blobs)):
            hashes = [hashlib.sha256(data).hexdigest() for data in blobs]
            are_claimed = [content_hash in self._claims for content_hash in hashes]  # first: it ends when it is stored
            rows = self._store.locate(hashes)
            return [self._look_into(*one) for one in zip(blobs, hashes, are_claimed, rows >= 0, strict=True)]

    def _look_into(self, data: bytes, content_hash: str, is_claimed: bool, is_stored: bool) -> Opened:
        if is_claimed or is_stored:
            return Opened(content_hash, is_stored=is_stored)
        try:
            return Opened(content_hash, inputs=self._decode(data))
        except Exception as error:
            return Opened(content_hash, reason=reason_of(error), kind=type(error).__name__)


def reason_of(error: Exception) -> str:
    """Why an item failed. Our own errors say it in a sentence; of others the type is told too."""
    if isinstance(error, NextbatchError):
        return str(error)
    log.warning("scan.unexpected", exc_info=error)
    return f"{type(error).__name__}: {error}"[:300]

"""What is away for a while is waited for: the source of the items, the encoder, the store."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from backend.errors import NextbatchError

log = structlog.get_logger()

T = TypeVar("T")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
MANY = 8  # so many items that fail at once, and none that succeeds, are an outage
FEW_WAIT_S = 5.0  # fewer are rather broken themselves: the last items of a scan have no other to tell it by


class Reader:
    """Reads items. A failure that waiting may mend is the item's own where another item could be read meanwhile;
    while none can, the item is tried again, so that a store's bad minute does not condemn a whole pool.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], timeout_s: float, outage_s: float) -> None:
        """`fetch` maps a URI to bytes and is given up after `timeout_s`; an outage is waited for `outage_s`."""
        self._fetch = fetch
        self._timeout_s = timeout_s
        self._outage_s = outage_s
        self._reads = 0  # successful ones
        self._waiting = 0
        self._is_away = False

    async def read(self, uri: str) -> bytes:
        """The item's bytes. Raises what `fetch` raised where the item is at fault, SourceAway where the source is."""
        pause = FIRST_PAUSE_S
        reads, started = self._reads, time.monotonic()
        self._waiting += 1
        try:
            while True:
                try:
                    async with asyncio.timeout(self._timeout_s):  # wait_for may swallow a cancellation
                        data = await self._fetch(uri)
                except (NextbatchError, TimeoutError) as error:
                    if not _is_passing(error) or self._reads > reads:
                        raise
                    waited_s = time.monotonic() - started
                    if self._is_away or (waited_s > self._outage_s and self._waiting >= MANY):
                        self._is_away = True  # for those that were cancelled too late to notice
                        raise SourceAway(error) from error
                    if waited_s > min(self._outage_s, FEW_WAIT_S) and self._waiting < MANY:
                        raise
                    log.warning("scan.source_away", cause=type(error).__name__, next_try_s=pause)
                else:
                    self._reads += 1
                    return data
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
        finally:
            self._waiting -= 1


class SourceAway(Exception):
    """No item could be read for a long time; `cause` is the last failure."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, NextbatchError) and error.is_passing)


async def until_back(act: Callable[[], Awaitable[T]], outage_s: float) -> T:
    """Do it; while the service or the disk behind it is away, wait and try again, for at most `outage_s`."""
    deadline = time.monotonic() + outage_s
    pause = FIRST_PAUSE_S
    while True:
        try:
            return await act()
        except (NextbatchError, sqlite3.OperationalError, OSError) as error:
            is_passing = not isinstance(error, NextbatchError) or error.is_passing
            if not is_passing or time.monotonic() > deadline:
                raise
            log.warning("scan.waiting", problem=str(error)[:200], next_try_s=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)

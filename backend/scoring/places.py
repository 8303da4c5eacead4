"""Places for reads: so many at once, and more of them while some hang."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

HANGS_S = 1.0
_HANGS_TIMES = 4  # of what a read takes as a rule: a slow source is no hanging one
_WEIGHT = 0.05  # of the latest read in that


class Places:
    """Room for `count` reads. One that takes far longer than the others leaves its place; at most `count` have."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._spare = count
        self._usual_s = 0.0

    async def take(self) -> "Place":
        """Wait for a place, which has to be given back."""
        await self._free.acquire()
        return Place(self)

    def leave(self) -> bool:
        if not self._spare:
            return False
        self._spare -= 1
        self._free.release()
        return True

    def give_back(self, *, was_left: bool) -> None:
        if was_left:
            self._spare += 1
        else:
            self._free.release()

    @property
    def patience_s(self) -> float:
        """How long a read may take before it hangs."""
        return max(HANGS_S, _HANGS_TIMES * self._usual_s)

    def read_in(self, seconds: float) -> None:
        self._usual_s += _WEIGHT * (seconds - self._usual_s)


class Place:
    """Taken for one item, from its read until it is where it belongs."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._is_left = False
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around the read."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._watch(loop)
        try:
            yield
            self._places.read_in(loop.time() - started)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def give_back(self) -> None:
        self._places.give_back(was_left=self._is_left)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._places.patience_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_left = self._places.leave()
        if not self._is_left:
            self._watch(loop)

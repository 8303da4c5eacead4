"""Places for reads: so many at once, and more of them while some hang."""

import asyncio
from types import TracebackType

HANGS_S = 1.0
_HANGS_TIMES = 4  # of what a read takes as a rule: a slow source is no hanging one
_WEIGHT = 0.05  # of the latest read in that
_LOOKS = 4  # at all of them in that time: a timer a read would cost more than the rest of this file


class Places:
    """Room for `count` reads. One that takes far longer than the others leaves its place; at most `count` have."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._spare = count
        self._usual_s = 0.0
        self._reading: dict[Place, None] = {}  # oldest first; without those that left
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> "Place":
        """Wait for a place, which has to be given back."""
        await self._free.acquire()
        return Place(self)

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

    def begin(self, place: "Place") -> float:
        """A read begins, now, on the loop's clock."""
        loop = asyncio.get_running_loop()
        self._reading[place] = None
        if self._timer is None:
            self._look_later(loop)
        return loop.time()

    def end(self, place: "Place") -> float:
        self._reading.pop(place, None)
        return asyncio.get_running_loop().time()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._spare and self._reading:
            oldest = next(iter(self._reading))
            if loop.time() - oldest.since < self.patience_s:
                break
            del self._reading[oldest]
            oldest.is_left = True
            self._spare -= 1
            self._free.release()
        self._timer = None
        if self._reading:
            self._look_later(loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(HANGS_S / _LOOKS, self._look, loop)


class Place:
    """Taken for one item, from its read until it is where it belongs; `with` it goes the read."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.since = 0.0
        self.is_left = False

    def __enter__(self) -> None:
        self.since = self._places.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._places.end(self)
        if kind is None:
            self._places.read_in(ended - self.since)

    def give_back(self) -> None:
        self._places.give_back(was_left=self.is_left)

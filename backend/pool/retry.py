"""Few, spread retries of what may pass a moment later."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backend.errors import FetchFailed

T = TypeVar("T")


class TryAgain(Exception):
    """What went wrong may have passed a moment later."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


async def retried(attempt: Callable[[], Awaitable[T]], retries: int, shown: str) -> T:
    """What `attempt` gives, tried up to `retries` times more on TryAgain, then FetchFailed with its problem."""
    for number in range(retries + 1):
        try:
            return await attempt()
        except TryAgain as failure:
            if number == retries:
                raise FetchFailed(uri=shown, problem=str(failure)) from None
            # Full jitter: a store that refused 64 requests at once should not get them back at once.
            await asyncio.sleep(failure.wait_s + random.uniform(0, 0.2 * 2**number))  # noqa: S311
    raise AssertionError("the last attempt returns or raises")

"""One page of a list, and how it is cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MOST = 200  # rows a page


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a list. `next` is where the next page begins, for `?from=`; None on the last one."""

    items: list[T]
    next: int | None


def cut(rows: Sequence[T], limit: int, place: Callable[[T], int]) -> Page[T]:
    """A page of `limit` rows out of `limit + 1` that were asked for; `place` is the row's own `?from=`."""
    return Page(list(rows[:limit]), place(rows[limit]) if len(rows) > limit else None)

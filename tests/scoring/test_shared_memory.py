"""Memory that Triton may still write to is not given back before its time, however many threads look."""

from collections import deque
from typing import Any

import pytest

from backend.scoring import triton
from backend.scoring.shared_memory import SWEEP_S
from backend.scoring.triton import _Connection


class Kept:
    """In place of a segment: whether it was released."""

    def __init__(self) -> None:
        self.released = 0

    def release(self, _client: Any) -> None:
        self.released += 1


class Stamp(float):
    """A moment. Who first compares it is interrupted: another thread does all of its work in between."""

    meanwhile: Any = None

    def __rsub__(self, other: float) -> float:
        if (meanwhile := type(self).meanwhile) is not None:
            type(self).meanwhile = None
            meanwhile()
        return other - float(self)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_two_threads_that_find_an_old_segment_release_it_alone_and_once(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    connection = object.__new__(_Connection)
    connection._is_shared, connection._idle, connection.client = True, [], None
    connection._sweeper = type("Still", (), {"sweep": lambda *_: None})()
    old, *young = segments = [Kept() for _ in range(1 + others)]
    connection._doubtful = deque([(Stamp(0.0), old), *((Stamp(SWEEP_S), one) for one in young)])
    monkeypatch.setattr(triton.time, "monotonic", lambda: SWEEP_S + 1)
    monkeypatch.setattr(triton, "Segment", lambda *_: Kept())
    Stamp.meanwhile = lambda: connection._take(1, 1)

    connection._take(1, 1)

    assert [one.released for one in segments] == [1] + [0] * others
    assert [one for _, one in connection._doubtful] == young

"""What `nextbatch serve` watches comes back, also where its first try to come back fails."""

import threading

import pytest

from backend import supervisor as supervising
from backend.errors import TritonFailed
from backend.supervisor import Supervisor


class Frail:
    """In place of Triton: dead until its second restart."""

    def __init__(self, stopping: threading.Event) -> None:
        self.restarts = 0
        self._stopping = stopping

    def is_alive(self) -> bool:
        return self.restarts == 2

    def restart(self) -> None:
        self.restarts += 1
        if self.restarts == 1:
            raise TritonFailed(problem="it did not answer within 60 s", log="")
        self._stopping.set()


def test_a_triton_that_does_not_come_back_at_once_is_started_again(
    home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home
    monkeypatch.setattr(supervising, "RESTART_S", (0.0,) * 5)
    stopping = threading.Event()
    supervisor = Supervisor()
    supervisor.triton = frail = Frail(stopping)  # type: ignore[assignment]

    supervisor.watch(stopping)

    assert frail.restarts == 2


class Slow:
    """In place of Triton: dead, and its restart takes a while."""

    def __init__(self) -> None:
        self.is_restarting, self.may_end = threading.Event(), threading.Event()
        self.is_back = False

    def is_alive(self) -> bool:
        return self.is_back

    def restart(self) -> None:
        self.is_restarting.set()
        assert self.may_end.wait(20)
        self.is_back = True


def test_nothing_is_being_restarted_once_the_watch_has_ended(home: object) -> None:
    assert home
    supervisor = Supervisor()
    supervisor.triton = slow = Slow()  # type: ignore[assignment]

    with supervisor.watching():
        assert slow.is_restarting.wait(20)
        slow.may_end.set()

    assert slow.is_back
    assert "watch" not in {thread.name for thread in threading.enumerate()}

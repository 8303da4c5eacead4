"""What `nextbatch serve` watches comes back, also where its first try to come back fails."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from backend import supervisor as supervising
from backend.connections import answers
from backend.errors import CannotListen, TritonFailed, WebSilent
from backend.processes import free_port, wait_until
from backend.supervisor import Child, Supervisor


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


def test_a_taken_port_is_refused_at_once_whoever_answers_there(home: object) -> None:
    assert home
    with socket.create_server(("127.0.0.1", 0)) as taken:
        supervisor = Supervisor(port=taken.getsockname()[1])

        with pytest.raises(CannotListen, match=r"already in use[\s\S]*--port"):
            supervisor.start()

    assert not supervisor.children


@pytest.fixture
def alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """One that starts no Triton and no workers."""
    assert home
    monkeypatch.setenv("TRITON_URL", "127.0.0.1:1")
    supervising.settings.cache_clear()
    return Supervisor(port=free_port(), workers=0)


def test_a_web_that_dies_while_all_is_starting_is_started_again(
    alone: Supervisor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = home / "died"
    dying = [sys.executable, "-c", f"import pathlib, sys; pathlib.Path({str(died)!r}).touch(); sys.exit(3)"]
    real = Child.start

    def dies_first(child: Child) -> None:
        command = child.command
        child.command = command if died.exists() else dying
        real(child)
        child.command = command

    monkeypatch.setattr(Child, "start", dies_first)
    try:
        alone.start()

        assert died.exists()
        assert answers(f"{alone.url}/health")
    finally:
        alone.stop()
    assert not answers(f"{alone.url}/health")


def test_a_web_that_never_answers_is_told_with_the_end_of_its_log(
    alone: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "START_S", 1.0)
    monkeypatch.setattr(alone, "port", -1)
    monkeypatch.setattr(supervising, "listening_problem", lambda *_: "")
    try:
        with pytest.raises(WebSilent, match=r"web\.log and ends with:"):
            alone.start()
    finally:
        alone.stop()


def test_who_is_told_to_end_while_all_is_starting_does_not_wait_for_web(alone: Supervisor) -> None:
    stopping = threading.Event()
    stopping.set()
    try:
        alone.start(stopping=stopping)

        assert wait_until(lambda: alone.children[0].process is not None, 1)
    finally:
        alone.stop()

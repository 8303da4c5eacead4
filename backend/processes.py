"""Child processes that die with their parent, free ports for them, and what one process does at a time."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import SystemRandom

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.5
_LOWEST_PORT = 15_000  # above what services and browsers keep for themselves


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a child runs before exec: the kernel sends `death_signal` when the *thread* that started it ends.

    A parent that died between fork and this call is noticed too.
    """
    parent = os.getpid()

    def arm() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return arm


def spawn(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    nice: int = 0,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start `command` with its output appended to `log`. Call it from a thread that lives as long as the child should.

    The child leads a process group, so that `stop` reaches what it started in turn. It inherits `pass_fds`.
    """
    arm = die_with_parent(death_signal)

    def prepare() -> None:
        arm()
        if nice:
            os.nice(nice)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - commands are ours, never a user's text
            [str(part) for part in command],
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,
            process_group=0,
            pass_fds=pass_fds,
        )


def stop(process: "subprocess.Popen[bytes]", timeout_s: float = 10.0) -> int:
    """SIGTERM, then SIGKILL for the whole group after `timeout_s`. Returns the exit status."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def see_through(process: "subprocess.Popen[bytes]", is_over: Callable[[], bool] = lambda: False) -> int:
    """Wait until it ends, or until `is_over`, looked at twice a second, and stop it. Returns the exit status."""
    try:
        while process.poll() is None and not is_over():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
    finally:
        status = stop(process)
    return status


def tail(log: Path, size_bytes: int = 2000) -> str:
    """The end of what was written there; empty where nothing was."""
    with contextlib.suppress(FileNotFoundError):
        return log.read_bytes()[-size_bytes:].decode(errors="replace")
    return ""


def last_words(log: Path, status: int) -> str:
    """The last line that a child wrote, or its exit status where it wrote none."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {status}"


def listening_problem(host: str, port: int) -> str:
    """Empty where a server may listen there, or else why not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: what closed just now is no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def free_port() -> int:
    """A loopback port that nobody listens on at this moment, and that the kernel gives to no connection later."""
    random = SystemRandom()  # two processes that were seeded alike must not choose alike
    while listening_problem("127.0.0.1", port := random.randrange(_LOWEST_PORT, _lowest_of_connections())):
        pass
    return port


def _lowest_of_connections() -> int:
    """Where the kernel's ports for outgoing connections begin."""
    try:
        return max(int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]), 2 * _LOWEST_PORT)
    except OSError:
        return 2 * _LOWEST_PORT


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time holds the file; others wait. One that died holds nothing."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_until(is_true: Callable[[], bool], timeout_s: float, poll_s: float = 0.1) -> bool:
    """Poll until `is_true` or the time is over; says which."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True

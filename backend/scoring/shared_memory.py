"""Items and embeddings in memory that this process and Triton both see: 40 µs an image where gRPC takes 388 µs.

A segment has a name only until Triton has opened it, so that a killed process leaves no file behind. What stays then
is Triton's own mapping, which `Sweeper` gives back.
"""

import contextlib
import mmap
import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives, not a temporary file
PREFIX = "nextbatch-"
SWEEP_S = 60.0  # longer than a request lives: not every Triton guards a region that a running request uses
RELEASE_S = 5.0


class Segment:
    """One request's memory: embeddings first, items behind them. Used by one request at a time."""

    def __init__(self, client: Any, output_bytes: int, size_bytes: int) -> None:
        """Make it and let Triton open it. Raises OSError, or Triton's error where it runs on another host."""
        self.name = f"{PREFIX}{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:12]}"
        self.output_bytes = output_bytes
        self.size_bytes = size_bytes
        path = FOLDER / self.name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Not ftruncate: a full /dev/shm must fail here, not as a bus error when the memory is written.
            os.posix_fallocate(descriptor, 0, size_bytes)
            self._memory = mmap.mmap(descriptor, size_bytes)
            client.register_system_shared_memory(self.name, f"/{self.name}", size_bytes, client_timeout=5)
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def write(self, inputs: NDArray[Any]) -> None:
        """Copy the items in."""
        np.frombuffer(self._memory, inputs.dtype, inputs.size, self.output_bytes).reshape(inputs.shape)[:] = inputs

    def read(self, rows: int, dims: int) -> NDArray[np.float32]:
        """A copy of the embeddings float32 (rows, dims)."""
        return np.frombuffer(self._memory, np.float32, rows * dims).reshape(rows, dims).copy()

    def release(self, client: Any) -> None:
        """Let Triton forget it. Only when no request uses it any more."""
        from tritonclient.utils import InferenceServerException

        # Triton answers a request a moment before it lets go of its memory.
        retrying = Retrying(
            retry=retry_if_exception_message(match=".*in use"),
            stop=stop_after_delay(RELEASE_S),
            wait=wait_random_exponential(multiplier=0.001, max=0.1),
            reraise=True,
        )
        with contextlib.suppress(InferenceServerException):  # Triton was restarted, or is away: nothing to forget
            retrying(client.unregister_system_shared_memory, self.name, client_timeout=5)


class Sweeper:
    """Gives back regions whose clients died. A region goes when its owner was found dead `SWEEP_S` ago: a request
    of the dead process may still be running in Triton."""

    def __init__(self) -> None:
        self._dead: dict[str, float] = {}
        self._next = 0.0

    def sweep(self, client: Any) -> None:
        """At most every `SWEEP_S`. Raises Triton's error."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SWEEP_S + 1
        regions = client.get_system_shared_memory_status(client_timeout=5).regions
        dead = {name for name in regions if name.startswith(PREFIX) and _is_dead(name)}
        for name in dead:
            if now - self._dead.setdefault(name, now) >= SWEEP_S:
                client.unregister_system_shared_memory(name, client_timeout=5)
        self._dead = {name: since for name, since in self._dead.items() if name in dead}


def _is_dead(name: str) -> bool:
    """A process id alone may be another process's by now; with its start time it is not."""
    pid, started = name.removeprefix(PREFIX).split("-")[:2]
    return _started(int(pid)) != int(started)


def _started(pid: int) -> int:
    """Start time of a process in clock ticks since boot, 0 where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    except OSError:
        return 0

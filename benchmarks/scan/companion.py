"""Programs that run beside the benchmark and answer questions, and the CPU that they take."""

import json
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from backend.processes import die_with_parent

ROOT = Path(__file__).parent.parent.parent
ANSWER = "@answer "
CORES = psutil.cpu_count() or 1


class Companion:
    """A child process that prints `ANSWER` and JSON: once when it is ready, then for each line of JSON on its stdin."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str], nice: int = 0) -> None:
        self._log = log.open("ab")
        self.path = log
        self.process = subprocess.Popen(
            ["nice", "-n", str(nice), *map(str, command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=dict(environment), cwd=ROOT,
            text=True, preexec_fn=die_with_parent(),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()
        self._log.close()

    def ask(self, question: Any = None) -> dict[str, Any]:
        """The answer to a question; with none, what it says when it is ready."""
        if question is not None:
            self.tell(question)
        return self.answer()

    def tell(self, question: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next one. Raises ChildProcessError with the end of the log where the program ended instead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
                return answer
        self.process.wait()
        tail = self.path.read_text(errors="replace")[-2000:]
        raise ChildProcessError(f"{self.process.args} ended with {self.process.returncode}:\n{tail}")


def cpu_seconds(processes: Iterable[int]) -> float:
    """User and system time of processes that are alive, all their threads included, to 10 ms each."""
    total = 0.0
    for pid in processes:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def below(pid: int) -> list[int]:
    """The process and all its descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def stolen_s() -> float:
    """Seconds of a core, the mean of all, that this machine wanted and its host gave to others, since it started.

    Where all cores are kept busy, work takes so much longer.
    """
    return float(getattr(psutil.cpu_times(), "steal", 0.0)) / CORES


class Meter:
    """CPU seconds by name of process between `with` and its end, the seconds between, and those of them stolen."""

    def __init__(self, **processes: Iterable[int]) -> None:
        self._processes = {name: list(pids) for name, pids in processes.items()}
        self.cpu_s: dict[str, float] = {}
        self.seconds = self.stolen_s = 0.0

    def __enter__(self) -> Self:
        self._before = {name: cpu_seconds(pids) for name, pids in self._processes.items()}
        self._started, self._stolen_before = time.perf_counter(), stolen_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.seconds = time.perf_counter() - self._started
            self.stolen_s = stolen_s() - self._stolen_before
            self.cpu_s = {name: cpu_seconds(pids) - self._before[name] for name, pids in self._processes.items()}

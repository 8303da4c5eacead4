"""Web, worker and Triton on one machine: start them in order, watch, restart what dies, stop in order.

Children die with this process, also when it is killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from backend.connections import answers
from backend.errors import CannotListen, NextbatchError, WebSilent
from backend.processes import free_port, listening_problem, spawn, stop, tail, wait_until
from backend.rounds.queue import prepare_database
from backend.scoring import serving
from backend.settings import settings

log = structlog.get_logger()

RESTART_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # pauses before the first, second, … restart in a row
START_S = 180.0  # of a busy machine: a few seconds otherwise
STEADY_S = 60.0  # a child that lived so long starts again from the first pause


@dataclass
class Child:
    """One supervised process and how often it died of late."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    nice: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float = field(default=0.0)

    def start(self) -> None:
        self.process = spawn(self.command, self.log, self.environment, nice=self.nice)
        self.started_at = time.monotonic()

    def watch(self) -> None:
        """Start the child again if it died, after a pause that grows while it keeps dying."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            stop(self.process)
            self.deaths = 1 if now - self.started_at > STEADY_S else self.deaths + 1
            pause = RESTART_S[min(self.deaths, len(RESTART_S)) - 1]
            log.warning("supervisor.died", child=self.name, status=code, restart_in_s=pause, log=str(self.log))
            self.process, self.restart_at = None, now + pause
        if self.process is None and now >= self.restart_at:
            self.start()


class Supervisor:
    """`nextbatch serve`. Start it from a thread that lives as long as it should; `url` is where web listens."""

    def __init__(
        self, host: str = "127.0.0.1", port: int | None = None, workers: int = 1, logs: Path | None = None
    ) -> None:
        self.host = host
        self.port = port or free_port()
        self.workers = workers
        self.logs = logs or settings().home / "logs"
        self.children: list[Child] = []
        self.triton: serving.EmbeddedTriton | None = None
        self.engine = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self, say: Callable[[str], None] = lambda _line: None, stopping: threading.Event | None = None) -> None:
        """Migrate, then start Triton (where it can run), web and workers; returns when web answers, or at `stopping`.

        Raises CannotListen, WebSilent, or what keeps the database or Triton from starting.
        """
        if problem := listening_problem(self.host, self.port):  # a stranger who answers there would be taken for web
            raise CannotListen(url=self.url, problem=problem)
        prepare_database()
        environment = dict(os.environ) | {
            "NEXTBATCH_HOME": str(settings().home),
            "OMP_NUM_THREADS": str(settings().worker_threads),
        }
        triton_url = settings().triton_url or self._embedded_triton(say)
        if triton_url:
            environment["TRITON_URL"] = triton_url
        python = [sys.executable, "-m", "backend.cli"]
        self.children = [
            Child("web", [*python, "web", "--host", self.host, "--port", str(self.port)], environment, self._log("web"))
        ]
        for number in range(self.workers):
            name = f"worker-{number}"
            self.children.append(Child(name, [*python, "worker"], environment, self._log(name), nice=10))
        if not wait_until(lambda: self._is_up() or (stopping is not None and stopping.is_set()), START_S):
            raise WebSilent(url=self.url, timeout_s=START_S, log=self._log("web"), tail=tail(self._log("web")))

    def watch(self, stopping: threading.Event) -> None:
        """Restart what dies until `stopping`."""
        while not stopping.wait(0.2):
            self._watch_children()
            if self.triton is not None and not self.triton.is_alive():
                log.warning("supervisor.died", child="triton")
                try:
                    self.triton.restart()
                except NextbatchError as error:  # it may have been slow: nobody else would try again
                    log.error("supervisor.not_restarted", child="triton", problem=str(error))
                    stopping.wait(RESTART_S[2])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The same from a thread, which has ended when the block has: `stop` then stops what nobody restarts."""
        stopping = threading.Event()
        thread = threading.Thread(target=self.watch, args=(stopping,), name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def stop(self) -> None:
        """Web first, so that nothing new comes in; then the workers, then Triton under them."""
        for child in self.children:
            if child.process is not None:
                stop(child.process)
        if self.triton is not None:
            self.triton.stop()

    def _embedded_triton(self, say: Callable[[str], None]) -> str | None:
        is_supported, reason = serving.is_supported()
        if not is_supported:
            self.engine = f"in the worker ({reason})"
            say(f"Triton cannot be embedded here: {reason}. The encoder runs in the worker.")
            return None
        self.triton = serving.EmbeddedTriton(settings().home / "triton", progress=say)
        self.triton.start()
        self.engine = f"Triton at {self.triton.url}"
        return self.triton.url

    def _is_up(self) -> bool:
        self._watch_children()
        return answers(f"{self.url}/health")

    def _watch_children(self) -> None:
        for child in self.children:
            child.watch()

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def serve(host: str, port: int, workers: int) -> None:
    """Run until SIGTERM or SIGINT."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    supervisor = Supervisor(host, port, workers)
    try:
        supervisor.start(lambda line: log.info("serve", message=line), stopping)
        if not stopping.is_set():
            log.info("serve.ready", url=supervisor.url, encoder=supervisor.engine)
        supervisor.watch(stopping)
    finally:
        supervisor.stop()

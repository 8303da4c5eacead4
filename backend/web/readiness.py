"""/ready: whether what nextbatch needs is there, each with a reason. /health only says that this process lives."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import sqlalchemy as sa
from flask import Response, jsonify

from backend.connections import certificates
from backend.database import Project, Worker, now, reading
from backend.errors import NextbatchError
from backend.rounds.heartbeat import beating
from backend.rounds.source import open_studio
from backend.scoring.servers import addresses, problem_of
from backend.settings import settings
from backend.web import auth

WITHIN_S = 2.0  # for all checks together; probes are asked every few seconds and give up after about that
GLANCE_S = 0.2  # a page waits no longer
KEPT_S = 1.0  # nobody can make us ask the others more often, however often we are asked


@dataclass(frozen=True)
class Check:
    """One thing that is needed: whether it is there, and why one says so. Reasons name no address."""

    is_ready: bool
    reason: str


def database() -> Check:
    """Our tables can be read."""
    with reading() as session:
        projects = session.scalar(sa.select(sa.func.count()).select_from(Project))
    return Check(True, f"{projects} projects")


def worker() -> Check:
    """A worker gave a sign of life of late."""
    with reading() as session:
        seen = session.execute(sa.select(sa.func.max(Worker.seen_at), sa.func.count())).one()
        alive = len(beating(session))
    if alive:
        return Check(True, f"{alive} alive")
    if seen[0] is None:
        return Check(False, "no worker ever started; run nextbatch worker, or nextbatch serve")
    silent_s = (now() - seen[0]).total_seconds()
    return Check(False, f"the last sign of a worker is {silent_s:.0f} s old; start one")


def triton() -> Check:
    """One of the servers of TRITON_URL can encode; without any the worker does."""
    urls = addresses(settings().triton_url or "")
    if not urls:
        return Check(True, "not used: the encoder runs in the worker")
    away = [url for url in urls if problem_of(url, WITHIN_S / len(urls) * 0.8)]
    if len(away) == len(urls):
        return Check(False, f"none of {len(urls)} servers is ready; start it, or correct TRITON_URL")
    return Check(True, f"{len(urls) - len(away)} of {len(urls)} servers are ready")


def label_studio() -> Check:
    """It answers, and knows our token."""
    if settings().label_studio_url is None:
        return Check(True, "not used: LABEL_STUDIO_URL is not set")
    httpx.get(
        f"{settings().label_studio_url}/health", timeout=WITHIN_S * 0.4, trust_env=False, verify=certificates()
    )  # fails at once
    with open_studio() as studio:
        studio.get("/api/current-user/whoami", timeout_s=WITHIN_S * 0.8)
    return Check(True, "it answers and takes our token")


CHECKS: Mapping[str, Callable[[], Check]] = {
    "database": database,
    "worker": worker,
    "triton": triton,
    "label_studio": label_studio,
}


class Readiness:
    """Runs the checks beside each other. One that hangs is not begun a second time, and is not waited for."""

    def __init__(self, checks: Mapping[str, Callable[[], Check]] = CHECKS) -> None:
        self._checks = checks
        self._pool = ThreadPoolExecutor(len(checks), thread_name_prefix="ready")
        self._running: dict[str, Future[Check]] = {}
        self._lock = threading.Lock()
        self._told: dict[str, Check] = {}
        self._told_at = -KEPT_S

    def look(self) -> dict[str, Check]:
        """Every check by name, at most `KEPT_S` old; takes `WITHIN_S` at most."""
        with self._lock:
            if time.monotonic() - self._told_at > KEPT_S:
                self._told = self._ask()
                self._told_at = time.monotonic()
            return self._told

    def last(self) -> dict[str, Check]:
        """What was found last; what is older than `KEPT_S` is asked for anew, for the next look. Waits `GLANCE_S`."""
        if time.monotonic() - self._told_at > KEPT_S and not self._lock.locked():
            asking = threading.Thread(target=self.look, name="ready", daemon=True)
            asking.start()
            asking.join(0 if self._told else GLANCE_S)
        return self._told

    def _ask(self) -> dict[str, Check]:
        deadline = time.monotonic() + WITHIN_S
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = self._pool.submit(check)
        found = {}
        for name, future in list(self._running.items()):
            try:
                found[name] = future.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                found[name] = Check(False, f"it did not answer within {WITHIN_S:g} s")
            except Exception as error:
                found[name] = Check(False, _reason(error))
            if future.done():
                del self._running[name]
        return found


def _reason(error: Exception) -> str:
    """Kinds of errors and not their words, which hold addresses; whoever may see more asks `nextbatch doctor`."""
    if isinstance(error, NextbatchError | httpx.HTTPError | sa.exc.SQLAlchemyError | OSError):
        return f"{type(error).__name__}; nextbatch doctor says more"
    return f"the check failed ({type(error).__name__})"


_readiness = Readiness()


def services() -> dict[str, Check]:
    """The checks as a page shows them, which does not wait for them; empty before the first."""
    return _readiness.last()


def ready() -> Response:
    """200 where everything is there, 503 where something is not."""
    refusal = auth.refuse_wrong_basic()
    if refusal is not None:
        return refusal
    found = _readiness.look()
    is_ready = all(check.is_ready for check in found.values())
    checks: dict[str, Any] = {name: asdict(check) for name, check in found.items()}
    answer = jsonify(status="ready" if is_ready else "not ready", checks=checks)
    answer.status_code = 200 if is_ready else 503
    answer.headers["Cache-Control"] = "no-store"
    return answer

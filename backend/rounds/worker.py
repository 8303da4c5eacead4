"""The worker process: it runs rounds, notices when one is due, and takes over the rounds of workers that died."""

import fcntl
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from backend import metrics
from backend.database import Event, Project, engine, lock_project, reading, transaction
from backend.rounds import alarms, journal, unfold
from backend.rounds.heartbeat import HEARTBEAT_S, beat
from backend.rounds.queue import (
    APPLICATION,
    APPLICATION_VERSION,
    CHANGES,
    JOBS,
    ORPHANS,
    ROUNDS,
    due_trigger,
    is_resting,
    request_round,
)
from backend.rounds.reconcile import RECONCILE_S, Reconciler
from backend.rounds.takeover import take_over
from backend.settings import settings

log = structlog.get_logger()

TICK_S = 0.5
POLL_S = 0.2
LOCKS_S = 8.0  # so long a machine that was cut off inside a transaction of the engine keeps others from its rows
JOBS_AT_ONCE = 2  # while one job's last minibatches are encoded, the next one's first items are fetched


@dataclass(frozen=True)
class Slot:
    """A worker's stable name on this machine, held by a file lock: the next worker in the slot recovers its rounds."""

    executor_id: str
    lock: IO[str] | None


def claim_slot(folder: Path) -> Slot:
    """The first free slot. Two workers that shared a name would run one round twice."""
    folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for number in range(10_000):
        lock = (folder / f"{host}-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return Slot(f"{host}-{number}"[:64], lock)
    raise OSError(f"all worker slots in {folder} are taken")


def run(stopping: threading.Event | None = None) -> None:
    """Work until SIGTERM or SIGINT (or `stopping`). The next worker goes on with a round in flight."""
    import backend.rounds.round  # noqa: F401 - registers the workflows before DBOS launches

    stopping = stopping or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
    is_whole = settings().role == "all"
    slot = claim_slot(settings().home / "workers") if is_whole else Slot(_unique_name(), None)
    DBOS(
        config=DBOSConfig(
            name=APPLICATION,
            system_database_url=settings().database,
            executor_id=slot.executor_id,
            application_version=APPLICATION_VERSION,
            serializer=DBOSPortableJSONSerializer(),
            run_migrations=False,
            sys_db_idle_transaction_timeout_sec=LOCKS_S,
            log_level="WARNING",
            enable_otlp=False,
        )
    )
    beat(slot.executor_id)
    if not is_whole:
        DBOS.listen_queues([JOBS, ORPHANS])
    DBOS.launch()
    DBOS.register_queue(
        ROUNDS, partition_concurrency=1, worker_concurrency=1, polling_interval_sec=POLL_S, on_conflict="always_update"
    )
    for name in (JOBS, ORPHANS):
        DBOS.register_queue(
            name, worker_concurrency=JOBS_AT_ONCE, polling_interval_sec=POLL_S, on_conflict="always_update"
        )
    DBOS.register_queue(CHANGES, worker_concurrency=2, polling_interval_sec=1.0, on_conflict="always_update")
    if address := settings().metrics:
        metrics.serve(address)
    log.info("worker.started", executor=slot.executor_id, pid=os.getpid(), role=settings().role)
    duties = [
        _every(HEARTBEAT_S, lambda: beat(slot.executor_id), stopping),
        _every(HEARTBEAT_S, lambda: take_over(slot.executor_id), stopping),
        _every(journal.EVERY_S, journal.flush, stopping),
    ]
    if is_whole:
        duties += [_every(TICK_S, request_due_rounds, stopping), _every(RECONCILE_S, Reconciler(), stopping)]
        duties.append(_every(HEARTBEAT_S, alarms.deliver, stopping))
        duties.append(_every(unfold.EVERY_S, unfold.Unfolder(stopping), stopping))
    stopping.wait()
    for duty in duties:
        duty.join(timeout=HEARTBEAT_S)
    log.info("worker.stopped", executor=slot.executor_id)
    DBOS.destroy(workflow_completion_timeout_sec=0)
    journal.flush()
    engine().dispose()
    if slot.lock is not None:
        slot.lock.close()


def request_due_rounds() -> None:
    """Ask for a round of every project in which one is due."""
    with reading() as session:
        projects = session.scalars(
            sa.select(Project).where(
                Project.id.in_(sa.select(Event.project_id).where(Event.round_number.is_(None)).distinct())
            )
        ).all()
        due = [one.id for one in projects if not is_resting(session, one.id) and due_trigger(session, one)]
    for project_id in due:
        with transaction() as session:
            lock_project(session, project_id)
            trigger = due_trigger(session, session.get_one(Project, project_id))
            if trigger is not None:  # else a round has begun since, for the same events
                request_round(session, project_id, trigger)


def _unique_name() -> str:
    """For a worker of role encode: other machines may have the same host name, and it has no rounds to come back to."""
    return f"{socket.gethostname()[:50]}-{uuid.uuid4().hex[:8]}"


def _every(seconds: float, act: Callable[[], object], stopping: threading.Event) -> threading.Thread:
    def loop() -> None:
        while not stopping.wait(seconds):
            try:
                act()
            except sa.exc.SQLAlchemyError as error:  # a database that is away comes back; the next beat tries again
                log.warning("worker.database", error=str(error).splitlines()[0])
            except Exception as error:  # a duty that ended would be missed by nobody: the heart goes on beating
                log.exception("worker.stumbled", cause=type(error).__name__)

    thread = threading.Thread(target=loop, name=getattr(act, "__name__", "beat"), daemon=True)
    thread.start()
    return thread

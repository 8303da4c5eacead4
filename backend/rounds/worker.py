"""The worker process: it runs rounds, notices when one is due, and takes over the rounds of workers that died."""

import datetime as dt
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
from backend.database import (
    EncoderChange,
    Event,
    Job,
    Project,
    Round,
    Worker,
    engine,
    lock_project,
    now,
    reading,
    transaction,
)
from backend.rounds import alarms, journal, unfold
from backend.rounds.changes import OPEN
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
from backend.settings import settings

log = structlog.get_logger()

TICK_S = 0.5
UNTOLD = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")  # ends of a workflow that its row may not tell
HEARTBEAT_S = 2.0
DEAD_AFTER = dt.timedelta(
    seconds=8
)  # a round of a killed worker is taken over within 15 s: this, plus a heartbeat, plus a poll
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
    _beat(slot.executor_id)
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
    beats = [
        _every(HEARTBEAT_S, lambda: _beat(slot.executor_id), stopping),
        _every(HEARTBEAT_S, lambda: take_over(slot.executor_id), stopping),
        _every(HEARTBEAT_S, lambda: take_over_jobs(slot.executor_id), stopping),
        _every(HEARTBEAT_S, lambda: take_over_changes(slot.executor_id), stopping),
        _every(journal.EVERY_S, journal.flush, stopping),
    ]
    if is_whole:
        beats += [_every(TICK_S, request_due_rounds, stopping), _every(RECONCILE_S, Reconciler(), stopping)]
        beats.append(_every(HEARTBEAT_S, alarms.deliver, stopping))
        beats.append(_every(unfold.EVERY_S, unfold.Unfolder(stopping), stopping))
    stopping.wait()
    for beat in beats:
        beat.join(timeout=HEARTBEAT_S)
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


def take_over(executor_id: str) -> None:
    """Resume the rounds of workers whose heart stopped, and mark rounds whose workflow ended without saying so.

    One worker does it for all, the first by name: two that saw the same orphan would let it run twice.
    """
    with reading() as session:
        running = {
            round_.workflow_id: round_.id
            for round_ in session.scalars(sa.select(Round).where(Round.state.in_(("waiting", "running"))))
        }
        beating = set(session.scalars(sa.select(Worker.executor_id).where(Worker.seen_at > now() - DEAD_AFTER)))
    if not running or min(beating, default=executor_id) != executor_id:
        return
    workflows = DBOS.list_workflows(workflow_ids=list(running), load_input=False, load_output=False)
    orphans = [
        workflow.workflow_id
        for workflow in workflows
        if workflow.status == "PENDING" and workflow.executor_id not in beating | {executor_id}
    ]
    if orphans:
        log.warning("worker.takes_over", workflows=orphans, executor=executor_id)
        DBOS.resume_workflows(orphans, queue_name=ROUNDS)
    ended = [w for w in workflows if w.status in UNTOLD]
    for workflow in ended:
        with transaction() as session:
            session.execute(
                sa.update(Round)
                .where(Round.id == running[workflow.workflow_id], Round.state.in_(("waiting", "running")))
                .values(state="cancelled" if workflow.status == "CANCELLED" else "failed", finished_at=now())
            )


def take_over_jobs(executor_id: str) -> None:
    """The same for jobs: others may take those of workers whose heart stopped."""
    with reading() as session:
        beating = set(session.scalars(sa.select(Worker.executor_id).where(Worker.seen_at > now() - DEAD_AFTER)))
        running = list(session.scalars(sa.select(Job.id).where(Job.state == "running")))
    if min(beating, default=executor_id) != executor_id:
        return
    taken = DBOS.list_workflows(status="PENDING", queue_name=[JOBS, ORPHANS], load_input=False, load_output=False)
    orphans = [workflow.workflow_id for workflow in taken if workflow.executor_id not in beating]
    if orphans:
        log.warning("worker.takes_over", workflows=orphans, executor=executor_id)
        DBOS.resume_workflows(orphans, queue_name=ORPHANS)
    if not running:
        return
    ids = {f"job:{id_}": id_ for id_ in running}
    ended = DBOS.list_workflows(workflow_ids=list(ids), status=list(UNTOLD), load_input=False, load_output=False)
    with transaction() as session:
        for workflow in ended:
            job = sa.update(Job).where(Job.id == ids[workflow.workflow_id], Job.state == "running")
            session.execute(job.values(state="failed", failure=str(workflow.status), finished_at=now()))


def take_over_changes(executor_id: str) -> None:
    """The same for changes of an encoder."""
    with reading() as session:
        beating = set(session.scalars(sa.select(Worker.executor_id).where(Worker.seen_at > now() - DEAD_AFTER)))
        going = list(session.scalars(sa.select(EncoderChange.id).where(EncoderChange.state.in_(OPEN[:-1]))))
    if not going or min(beating, default=executor_id) != executor_id:
        return
    ids = {f"encoder_change:{id_}": id_ for id_ in going}
    known = DBOS.list_workflows(workflow_ids=list(ids), load_input=False, load_output=False)
    orphans = [one.workflow_id for one in known if one.status == "PENDING" and one.executor_id not in beating]
    if orphans:
        log.warning("worker.takes_over", workflows=orphans, executor=executor_id)
        DBOS.resume_workflows(orphans, queue_name=CHANGES)
    for workflow in [one for one in known if one.status in UNTOLD]:
        change = sa.update(EncoderChange).where(EncoderChange.id == ids[workflow.workflow_id])
        end = {"state": "failed", "failure": str(workflow.status), "finished_at": now()}
        with transaction() as session:
            session.execute(change.where(EncoderChange.state.in_(OPEN)).values(end))


def alive_here() -> int:
    """How many workers of this host gave a sign of life of late."""
    is_alive = (Worker.host == socket.gethostname(), Worker.seen_at > now() - DEAD_AFTER)
    with reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Worker).where(*is_alive)) or 0


def _unique_name() -> str:
    """For a worker of role encode: other machines may have the same host name, and it has no rounds to come back to."""
    return f"{socket.gethostname()[:50]}-{uuid.uuid4().hex[:8]}"


def _beat(executor_id: str) -> None:
    with transaction() as session:
        session.merge(Worker(executor_id=executor_id, host=socket.gethostname(), pid=os.getpid(), seen_at=now()))


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

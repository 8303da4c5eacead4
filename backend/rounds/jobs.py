"""A large scan as a fan-out of jobs: workers on any machine encode parts of a pool, and the round gathers them.

A worker that shares the home writes to the vector store itself. One that does not (NEXTBATCH_ROLE=encode) sends its
vectors through the database as parcels, and the round's worker stores them: see docs/decisions.md.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
import structlog
from dbos import DBOS
from sqlalchemy.orm import Session

from backend.database import Item, Job, Parcel, Project, engine, lock_project, now, reading, transaction
from backend.errors import JobMismatch, JobsFailed, NextbatchError
from backend.logs import about
from backend.pool import catalog
from backend.rounds import encoding
from backend.rounds.outbox import Outbox, drain
from backend.rounds.queue import request_job
from backend.scoring.pipeline import ScanItem
from backend.scoring.stages import Speed, Stages
from backend.settings import settings

log = structlog.get_logger()

GATHER_S = 0.25  # how often a round looks for what its jobs sent
TELL_S = 1.0
OPEN = ("waiting", "running")

Tell = Callable[[int, int, Speed], None]


def encode(project_id: int, tell: Tell) -> dict[str, Any]:
    """Encode what has no embedding yet: here, or by all workers where it is more than one job's worth.

    On SQLite all workers are on this machine, and nothing is gained by sharing it out. Run again, it gathers the jobs
    that are still open and cuts only what they do not cover. Raises JobsFailed when all jobs ended and some failed.
    """
    if engine().dialect.name == "sqlite":
        return _encode_here(project_id, tell)
    with reading() as session:
        project = session.get_one(Project, project_id)
    embeddings = encoding.open_embeddings(project)
    with embeddings.store.held():
        drain(project_id, embeddings)
        encoding.forget_missing(project_id, embeddings)
        with transaction() as session:
            lock_project(session, project_id)
            made = _cut(session, project_id, embeddings.digest)
            first = session.scalar(sa.select(sa.func.min(Job.id)).where(*_open_jobs(project_id)))
        if first is None:
            return _encode_here(project_id, tell)
        log.info("jobs.made", project=project_id, jobs=made)
        return _gather(project_id, first, embeddings, tell)


def _encode_here(project_id: int, tell: Tell) -> dict[str, Any]:
    stages = Stages()
    return encoding.encode_new(
        project_id, lambda done, total: tell(done, total, stages.look(total - done)), None, stages
    )


@DBOS.workflow(name="job", max_recovery_attempts=20)
def run_job(job_id: int) -> dict[str, Any]:
    """One part of a scan, by whichever worker took it."""
    try:
        with about(job=job_id, run=DBOS.workflow_id):
            return encode_part(job_id)
    except Exception as failure:
        reason = str(failure) if isinstance(failure, NextbatchError) else f"{type(failure).__name__}: {failure}"
        _update(job_id, state="failed", failure=reason, finished_at=now())
        with about(job=job_id, run=DBOS.workflow_id):
            log.error("job.failed", reason=reason)
        raise


@DBOS.step(name="encode_part")
def encode_part(job_id: int) -> dict[str, Any]:
    """Encode the job's items that are still new. Run again, it finds what was stored or sent before."""
    with reading() as session:
        job = session.get_one(Job, job_id)
        project = session.get_one(Project, job.project_id)
        sent = {
            item
            for items in session.scalars(sa.select(Parcel.item_ids).where(Parcel.job_id == job_id))
            for item in items
        }
        items = [one for one in _part(session, job) if one.key not in sent]
    embeddings = encoding.open_embeddings(project)
    if embeddings.digest != job.encoder_digest:
        raise JobMismatch(mine=embeddings.digest[:12], wanted=job.encoder_digest[:12])
    before = job.items - len(items)
    log.info("job.began", project=project.id, items=job.items, done_before=before, worker=DBOS.executor_id)
    _update(job_id, state="running", started_at=now(), done=before, failed=0, worker=DBOS.executor_id)

    stages = Stages()

    def tell(done: int, total: int) -> None:
        _update(job_id, done=before + done, stages=stages.look(total - done).as_dict())

    if settings().role == "encode":
        outbox = Outbox(job_id, embeddings.spec.dims)
        report = encoding.scan(project, items, len(items), outbox, outbox.send, tell, None, stages)
    else:
        with embeddings.store.held():
            report = encoding.scan(
                project, items, len(items), embeddings.store, encoding.mark_encoded, tell, None, stages
            )
    counts = {"done": job.items, "failed": report.failed}
    _update(job_id, state="done", finished_at=now(), stages=report.speed.as_dict(), **counts)
    log.info("job.done", project=project.id, **counts)
    return counts


def _cut(session: Session, project_id: int, digest: str) -> int:
    """Make jobs of the new items that no open job covers, unless they are few and there is none. Returns how many."""
    session.execute(sa.delete(Job).where(Job.project_id == project_id, Job.state.not_in(OPEN)))
    is_covered = sa.exists().where(*_open_jobs(project_id), Item.id.between(Job.first_item, Job.last_item))
    has_open = session.scalar(sa.select(sa.exists().where(*_open_jobs(project_id))))
    query = sa.select(Item.id).where(Item.project_id == project_id, Item.state == "new", ~is_covered).order_by(Item.id)
    ids = session.scalars(query.execution_options(yield_per=10_000))
    made = 0
    for part in catalog.chunks(ids, settings().job_items):
        if not has_open and made == 0 and len(part) < settings().job_items:
            return 0
        job = Job(project_id=project_id, encoder_digest=digest, first_item=part[0], last_item=part[-1], items=len(part))
        session.add(job)
        session.flush()
        request_job(session, job.id)
        made += 1
    return made


def _gather(project_id: int, first: int, embeddings: encoding.Embeddings, tell: Tell) -> dict[str, Any]:
    """Store what the jobs send until all of them ended."""
    mine = (Job.project_id == project_id, Job.id >= first)
    counts = sa.select(
        sa.func.coalesce(sa.func.sum(Job.items), 0),
        sa.func.coalesce(sa.func.sum(Job.done), 0),
        sa.func.coalesce(sa.func.sum(Job.failed), 0),
        sa.func.count().filter(Job.state.in_(OPEN)),
    ).where(*mine)
    told_at = 0.0
    while True:
        with reading() as session:  # before the parcels: what a job sent is there when it says that it is done
            total, done, failed, still_open = session.execute(counts).one()
        stored = drain(project_id, embeddings)
        if time.monotonic() - told_at > TELL_S or not still_open:
            with reading() as session:
                running = session.scalars(sa.select(Job.stages).where(*mine, Job.state == "running")).all()
            tell(int(done), int(total), Speed.of_many(map(Speed.from_dict, running), int(total - done)))
            told_at = time.monotonic()
        if not still_open:
            break
        if not stored:
            time.sleep(GATHER_S)
    with reading() as session:
        problems = session.scalars(sa.select(Job.failure).where(*mine, Job.state == "failed").limit(1000)).all()
    if problems:
        raise JobsFailed(count=len(problems), problem=problems[0])
    return {"encoded": int(done - failed), "failed": int(failed)}


def _part(session: Session, job: Job) -> Iterator[ScanItem]:
    for item_id, uri in catalog.new_items(session, job.project_id, job.first_item, job.items, job.last_item):
        yield ScanItem(item_id, uri)


def _open_jobs(project_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.project_id == project_id, Job.state.in_(OPEN)


def _update(job_id: int, **values: Any) -> None:
    with transaction() as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(**values))

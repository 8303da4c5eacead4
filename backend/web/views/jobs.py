"""What is being worked on: the running round's scan with its limit and the time left, and the parts of a shared one."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Job, Project, Round
from backend.scoring.stages import Speed
from backend.web.views.page import Page, cut

MOST_JOBS = 50


@dataclass(frozen=True)
class StageView:
    """One stage of a scan; `busy` is the share of its places at work, in [0, 1]."""

    name: str
    items_per_s: float
    busy: float


@dataclass(frozen=True)
class ScanView:
    """A scan as it was last told. `bottleneck` is empty and `left_s` None while nobody can tell."""

    done: int
    total: int
    bottleneck: str
    left_s: float | None
    stages: list[StageView]
    failures: dict[str, int]


@dataclass(frozen=True)
class JobView:
    """A part of a scan that many workers share."""

    id: int
    state: str
    worker: str | None
    done: int
    items: int
    failed: int
    bottleneck: str
    left_s: float | None
    failure: str | None
    started_at: dt.datetime | None


@dataclass(frozen=True)
class Work:
    """The running round and its scan, if it scans, and the parts that are not done: those that run, wait or failed."""

    round: int | None
    scan: ScanView | None
    parts: list[JobView]
    parts_left: int


def work(session: Session, project: Project) -> Work:
    """What is being done for the project now."""
    is_running = (Round.project_id == project.id, Round.state == "running")
    running = session.execute(sa.select(Round.number, Round.progress).where(*is_running).limit(1)).one_or_none()
    number, told = (None, {}) if running is None else running
    scan = None
    if told and told.get("total"):
        speed = Speed.from_dict(told)
        scan = ScanView(
            told["done"], told["total"], speed.bottleneck, speed.left_s, _stages(speed), dict(speed.failures)
        )
    is_left = (Job.project_id == project.id, Job.state != "done")
    left = session.scalar(sa.select(sa.func.count()).select_from(Job).where(*is_left)) or 0
    rows = session.scalars(sa.select(Job).where(*is_left).order_by(Job.state, Job.id).limit(MOST_JOBS)).all()
    return Work(number, scan, [_view(row) for row in rows], left)


def jobs(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[JobView]:
    """Parts of the last shared scan, newest first, from id `newest` down."""
    query = sa.select(Job).where(Job.project_id == project.id)
    if newest is not None:
        query = query.where(Job.id <= newest)
    rows = session.scalars(query.order_by(Job.id.desc()).limit(limit + 1)).all()
    return cut([_view(row) for row in rows], limit, lambda one: one.id)


def find_job(session: Session, project: Project, number: int) -> JobView | None:
    """The part of that id."""
    found = session.scalar(sa.select(Job).where(Job.project_id == project.id, Job.id == number))
    return None if found is None else _view(found)


def _stages(speed: Speed) -> list[StageView]:
    return [StageView(name, one.items_per_s, one.busy) for name, one in speed.stages.items()]


def _view(job: Job) -> JobView:
    speed = Speed.from_dict(job.stages)
    return JobView(
        id=job.id,
        state=job.state,
        worker=job.worker,
        done=job.done,
        items=job.items,
        failed=job.failed,
        bottleneck=speed.bottleneck,
        left_s=speed.left_s,
        failure=job.failure,
        started_at=job.started_at,
    )

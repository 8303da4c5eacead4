"""What is being worked on: the running round's scan with its limit and the time left, and the parts of a shared one."""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Job, Project, Round
from backend.scoring.stages import Speed

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
    """The running round's scan, if it scans, and the parts that are not done: those that run, wait or failed."""

    scan: ScanView | None
    parts: list[JobView]
    parts_left: int


def work(session: Session, project: Project) -> Work:
    """What is being done for the project now."""
    told = session.scalar(
        sa.select(Round.progress).where(Round.project_id == project.id, Round.state == "running").limit(1)
    )
    scan = None
    if told and told.get("total"):
        speed = Speed.from_dict(told)
        scan = ScanView(
            told["done"], told["total"], speed.bottleneck, speed.left_s, _stages(speed), dict(speed.failures)
        )
    is_left = (Job.project_id == project.id, Job.state != "done")
    left = session.scalar(sa.select(sa.func.count()).select_from(Job).where(*is_left)) or 0
    rows = session.scalars(sa.select(Job).where(*is_left).order_by(Job.state, Job.id).limit(MOST_JOBS)).all()
    return Work(scan, [_view(row) for row in rows], left)


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

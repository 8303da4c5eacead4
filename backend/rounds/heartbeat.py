"""A worker's signs of life in the database, and who gave one of late."""

import datetime as dt
import os
import socket

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Worker, now, reading, transaction

HEARTBEAT_S = 2.0
# What a killed worker held is taken over within 15 s: this, plus a heartbeat, plus a poll of the queue.
DEAD_AFTER = dt.timedelta(seconds=8)


def beat(executor_id: str) -> None:
    with transaction() as session:
        session.merge(Worker(executor_id=executor_id, host=socket.gethostname(), pid=os.getpid(), seen_at=now()))


def beating(session: Session) -> set[str]:
    """The names of the workers that live."""
    return set(session.scalars(sa.select(Worker.executor_id).where(Worker.seen_at > now() - DEAD_AFTER)))


def alive_here() -> int:
    """How many workers of this host live."""
    is_alive = (Worker.host == socket.gethostname(), Worker.seen_at > now() - DEAD_AFTER)
    with reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Worker).where(*is_alive)) or 0

"""A scan that a worker runs, seen from another process."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from backend.database import Round, reading
from backend.scoring.stages import Speed

LOOK_S = 1.0  # as often as a scan tells
ENCODING_STEPS = ("encode", "restock")


@dataclass(frozen=True)
class Moment:
    """So many of the items are done, and so fast."""

    done: int
    total: int
    speed: Speed


def moments(project_id: int) -> Iterator[Moment]:
    """The running round's scan, about once a second until its step ends; nothing where no round is encoding."""
    query = sa.select(Round.progress).where(
        Round.project_id == project_id, Round.state == "running", Round.step.in_(ENCODING_STEPS)
    )
    while True:
        with reading() as session:
            told = session.scalar(query)
        if told is None:
            return
        if told.get("total"):
            yield Moment(told["done"], told["total"], Speed.from_dict(told))
        time.sleep(LOOK_S)

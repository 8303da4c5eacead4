"""A round as a worker does it, but for Label Studio: people's labels are written where `sync` would write them."""

import datetime as dt
import time
from pathlib import PurePosixPath
from typing import Any

import sqlalchemy as sa

from backend.database import Annotation, Batch, Item, Pick, Round, reading, transaction
from backend.rounds.choose import choose
from backend.rounds.learn import learn


def label(project: int, ids: list[int] | None = None, count: int = 0) -> dict[str, Any]:
    """Label these items, or `count` of the pool spread evenly, by the folder that an item's address names."""
    with reading() as session:
        of_pool = sa.select(Item.id, Item.uri).where(Item.project_id == project, Item.state == "encoded")
        items = session.execute(of_pool.order_by(Item.key)).all()
    chosen = set(ids) if ids is not None else {id_ for id_, _ in items[:count]}
    now = dt.datetime.now(dt.UTC)
    with transaction() as session:
        for id_, uri in items:
            if id_ in chosen:
                session.add(
                    Annotation(
                        project_id=project, item_id=id_, external_id=id_, label=PurePosixPath(uri).parent.name,
                        annotator="benchmark", created_at=now, updated_at=now,
                    )
                )  # fmt: skip
    return {"labels": len(chosen)}


def turn(project: int, number: int) -> dict[str, Any]:
    """Learn and choose: a new head, evaluated and promoted, and the next batch. Seconds, CPU and the picked items."""
    with transaction() as session:
        session.add(Round(project_id=project, number=number, workflow_id=f"{project}:{number}", state="running"))
    started, cpu = time.perf_counter(), time.process_time()
    learned = learn(project, number)
    after_learn = time.perf_counter()
    chosen = choose(project, number)
    ended = time.perf_counter()
    with transaction() as session:
        session.execute(sa.update(Round).where(Round.project_id == project).values(state="done"))
    with reading() as session:
        batch = session.scalars(
            sa.select(Batch).where(Batch.project_id == project).order_by(Batch.number.desc())
        ).first()
        assert batch is not None
        picked = session.scalars(sa.select(Pick.item_id).where(Pick.batch_id == batch.id).order_by(Pick.rank)).all()
    return {
        "learn_s": after_learn - started, "choose_s": ended - after_learn, "cpu_s": time.process_time() - cpu,
        "learned": learned, "chosen": chosen, "picked": list(picked),
    }  # fmt: skip

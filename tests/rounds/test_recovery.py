"""A worker killed at any step: after a restart, or by another worker, the round ends and everything is there once."""

import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import Annotation, Batch, Item, ModelVersion, Pick, reading
from backend.processes import wait_until
from backend.studio.client import Studio
from tests.rounds import killed_worker
from tests.rounds.conftest import Loop

STEPS = ["begin", "sync", "encode", "learn", "choose", "publish", "restock", "finish"]


def assert_everything_is_there_once(loop: Loop, studio: Studio) -> None:
    with reading() as session:
        annotations = session.scalars(
            sa.select(Annotation.external_id).where(Annotation.project_id == loop.project_id)
        ).all()
        states = set(session.scalars(sa.select(Item.state).where(Item.project_id == loop.project_id)))
        versions = session.scalars(
            sa.select(ModelVersion.number).where(ModelVersion.project_id == loop.project_id)
        ).all()
        batches = session.scalars(sa.select(Batch).where(Batch.project_id == loop.project_id)).all()
        expected = session.scalars(
            sa.select(Item.task_id).join(Pick, Pick.item_id == Item.id).where(Pick.batch_id == batches[0].id)
            .order_by(Pick.rank)
        ).all()  # fmt: skip
    predictions = [
        (prediction["task"], prediction["score"])
        for prediction in studio.get("/api/predictions/", {"project": loop.studio_project_id})
        if prediction["model_version"] == batches[0].version
    ]
    assert len(annotations) == len(set(annotations)) == 22
    assert states == {"encoded"}
    assert versions == [1]
    assert [(batch.number, batch.state) for batch in batches] == [(1, "published")]
    assert [task for task, _ in sorted(predictions, key=lambda one: one[1])] == list(expected)
    assert len(expected) == 8
    assert studio.get(f"/api/projects/{loop.studio_project_id}/")["model_version"] == batches[0].version


@pytest.mark.timeout(600)
def test_workers_killed_after_each_step_in_turn_go_on_after_a_restart(
    loop: Loop, studio: Studio, tmp_path: Path
) -> None:
    number = loop.ask()
    for step in STEPS:
        marker = tmp_path / step
        killed = killed_worker.start(step, marker, loop.log)
        killed.join(120)
        assert killed.exitcode == -signal.SIGKILL, step
        assert marker.exists()

    loop.work()
    loop.wait_done(number)

    assert_everything_is_there_once(loop, studio)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_another_worker_takes_over_within_15_seconds(loop: Loop, studio: Studio, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    number = loop.ask()
    killed = killed_worker.start("choose", marker, loop.log)
    assert wait_until(lambda: loop.state(number) == "running", 120)
    loop.work()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL

    assert wait_until(lambda: loop.step(number) not in ("choose", ""), 15)  # it chose again and went on
    loop.wait_done(number)
    assert_everything_is_there_once(loop, studio)

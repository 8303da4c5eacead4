"""What a round does with the world as it finds it: a pool that ends, labels that went, a webhook that never came."""

import io
import logging

import pytest
import sqlalchemy as sa

from backend import logs
from backend.database import Annotation, Batch, Item, LogLine, ModelVersion, Pick, Round, reading, transaction
from backend.studio.client import Studio
from backend.studio.sync import pull_tasks
from tests.rounds.conftest import Loop

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def batch_of(loop: Loop, number: int) -> tuple[Batch, list[int]]:
    with reading() as session:
        batch = session.scalars(
            sa.select(Batch).join(Round, Round.id == Batch.round_id).where(Round.number == number)
        ).one()
        tasks = session.scalars(
            sa.select(Item.task_id).join(Pick, Pick.item_id == Item.id).where(Pick.batch_id == batch.id)
            .order_by(Pick.rank)
        ).all()  # fmt: skip
    return batch, [task or 0 for task in tasks]


def label(loop: Loop, studio: Studio, tasks: list[int]) -> None:
    for task in tasks:
        studio.post(f"/api/tasks/{task}/annotations/", {"result": loop.task.to_result("3"), "lead_time": 1.0})


def test_what_is_left_of_a_batch_comes_first_in_the_next_one(loop: Loop, studio: Studio) -> None:
    loop.work()
    loop.wait_done(loop.ask())
    first, tasks = batch_of(loop, 1)
    label(loop, studio, tasks[:5])

    loop.wait_done(loop.ask())

    second, refilled = batch_of(loop, 2)
    assert refilled[:3] == tasks[5:]
    assert len(refilled) == len(set(refilled)) == len(tasks)
    assert not set(refilled) & set(tasks[:5])
    with reading() as session:
        states = {batch.number: batch.state for batch in session.scalars(sa.select(Batch))}
    assert states == {first.number: "replaced", second.number: "published"}


def test_an_exhausted_pool_is_an_ordinary_state_and_the_worker_keeps_what_the_round_wrote(
    loop: Loop, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.configure(io.StringIO())
    everything = [record.task_id for record in pull_tasks(studio, loop.studio_project_id) if not record.annotations]
    label(loop, studio, everything)
    loop.work()

    loop.wait_done(loop.ask())

    batch, tasks = batch_of(loop, 1)
    loop.closing.close()
    with reading() as session:
        lines = session.scalars(sa.select(LogLine).order_by(LogLine.id)).all()
    told = [line.facts["step"] for line in lines if line.event == "round.step"]
    assert tasks == []
    assert batch.state == "published"
    assert {line.run for line in lines} == {f"round:{loop.project_id}:1"}
    assert told == ["sync", "encode", "learn", "choose", "publish", "restock"]
    assert {"encode.done", "round.done"} <= {line.event for line in lines}


def test_annotations_changed_and_deleted_while_we_were_away_are_in_the_next_round(loop: Loop, studio: Studio) -> None:
    loop.work()
    loop.wait_done(loop.ask())
    with reading() as session:
        changed, deleted, *_ = session.scalars(
            sa.select(Annotation).join(Item).where(Item.is_holdout.is_(False)).order_by(Annotation.external_id)
        ).all()
    other = "7" if changed.label != "7" else "1"
    studio.patch(f"/api/annotations/{changed.external_id}/", {"result": loop.task.to_result(other)})
    studio.delete(f"/api/annotations/{deleted.external_id}/")

    loop.wait_done(loop.ask())

    with reading() as session:
        after = {one.external_id: one for one in session.scalars(sa.select(Annotation))}
        first, second = session.scalars(sa.select(ModelVersion).order_by(ModelVersion.number)).all()
    assert after[changed.external_id].label == other
    assert after[deleted.external_id].deleted_at is not None
    assert (first.lineage["labels"], second.lineage["labels"]) == (10, 9)
    assert second.parent_id == first.id
    assert first.snapshot != second.snapshot


def test_a_broken_item_is_recorded_and_the_round_goes_on(loop: Loop, studio: Studio) -> None:
    path = f"/api/projects/{loop.studio_project_id}/import"
    made = studio.post(path, [{"data": {"image": "/nowhere/lost.png"}}], {"return_task_ids": True})
    (broken,) = made["task_ids"]
    loop.work()

    loop.wait_done(loop.ask())

    with reading() as session:
        item = session.scalars(sa.select(Item).where(Item.task_id == broken)).one()
    assert item.state == "failed"
    assert "/nowhere/lost.png" in (item.failure or "")


def test_the_random_slice_goes_to_the_holdout_for_good(loop: Loop, studio: Studio) -> None:
    assert studio
    with transaction() as session:
        project = session.execute(sa.text("SELECT config FROM projects")).scalar_one()
        config = project.replace('"holdout_share": 0', '"holdout_share": 0.25')
        session.execute(sa.text("UPDATE projects SET config = :config"), {"config": config})
    loop.work()

    loop.wait_done(loop.ask())

    with reading() as session:
        picks = session.execute(sa.select(Pick, Item).join(Item, Item.id == Pick.item_id)).all()
    random = [(pick, item) for pick, item in picks if pick.is_random_slice]
    assert len(random) == 2
    assert all(item.is_holdout for _, item in random)
    assert all(pick.propensity == pytest.approx(2 / 38) for pick, _ in random)
    assert not any(item.is_holdout for pick, item in picks if not pick.is_random_slice)

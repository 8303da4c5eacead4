"""A labelled item in a round's batch reaches somebody else, and is let go when a later batch is without it."""

import pytest
import sqlalchemy as sa

from backend.database import Batch, Item, Pick, Round, transaction
from backend.rounds import source
from backend.studio.client import Studio
from tests.rounds.conftest import Loop
from tests.services.label_studio import Person

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def batch_of(loop: Loop, number: int, items: list[int]) -> None:
    """A round with a batch of these items in this order."""
    with transaction() as session:
        round_ = Round(project_id=loop.project_id, number=number, workflow_id=f"round:{number}")
        session.add(round_)
        session.flush()
        batch = Batch(project_id=loop.project_id, round_id=round_.id, number=number, version=f"v0+b{number}")
        batch.strategy = "active_lab"
        session.add(batch)
        session.flush()
        for rank, item in enumerate(items):
            session.add(Pick(batch_id=batch.id, rank=rank, item_id=item, prediction={"label": "3"}))


def test_a_second_opinion_is_drawn_in_its_place_and_then_let_go(
    loop: Loop, studio: Studio, people: tuple[Person, Person]
) -> None:
    one, two = people
    with transaction() as session:
        (again, again_task), (new, new_task) = session.execute(
            sa.select(Item.id, Item.task_id).order_by(Item.id).offset(40).limit(2)
        ).all()
    answer = {"result": loop.task.to_result("3"), "lead_time": 1.0}
    one.http.post(f"/api/tasks/{again_task}/annotations/", json=answer).raise_for_status()
    source.sync(loop.project_id)
    batch_of(loop, 1, [again, new])

    source.publish(loop.project_id, 1)

    drawn = [person.draw(loop.studio_project_id) for person in (two, one)]
    assert [task["id"] for task in drawn if task] == [again_task, new_task]
    assert [task["predictions"][0]["result"] != [] for task in drawn if task] == [False, True]

    batch_of(loop, 2, [new])
    source.publish(loop.project_id, 2)

    assert studio.get(f"/api/tasks/{again_task}/")["is_labeled"]

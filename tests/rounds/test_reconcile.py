"""Labels whose webhooks were lost, all or some, still lead to a round, once."""

import sqlalchemy as sa

from backend.database import Event, Project, Round, reading, transaction
from backend.rounds.reconcile import Reconciler
from backend.rounds.source import sync
from backend.studio.client import Studio
from tests.rounds.conftest import Loop


def triggers(loop: Loop) -> list[str]:
    with reading() as session:
        return list(session.scalars(sa.select(Round.trigger).where(Round.project_id == loop.project_id)))


def label(studio: Studio, loop: Loop, count: int) -> None:
    """So many labels, of which no webhook tells."""
    page = studio.get("/api/tasks", {"project": loop.studio_project_id, "page_size": 100, "fields": "all"})
    free = [task["id"] for task in page["tasks"] if not task["total_annotations"]]
    for task_id in free[:count]:
        studio.post(f"/api/tasks/{task_id}/annotations/", {"result": loop.task.to_result("3")})


def test_labels_without_events_ask_for_a_round_once(loop: Loop, studio: Studio) -> None:
    sync(loop.project_id)
    with transaction() as session:
        project = session.get_one(Project, loop.project_id)
        project.config = {**project.config, "trigger": {"new_labels": 5}}
    look = Reconciler()

    label(studio, loop, 4)
    look()
    few = triggers(loop)
    label(studio, loop, 1)
    look()
    enough = triggers(loop)
    with transaction() as session:
        session.execute(sa.update(Round).where(Round.project_id == loop.project_id).values(state="done"))
    look()

    assert few == []
    assert enough == ["reconcile"]
    assert triggers(loop) == ["reconcile"]
    sync(loop.project_id)
    look()
    assert triggers(loop) == ["reconcile"]


def test_the_one_label_that_no_event_told_of_makes_a_round_due(loop: Loop, studio: Studio) -> None:
    """Without it the two that were told of would wait for a third for ever."""
    sync(loop.project_id)
    label(studio, loop, 3)
    with transaction() as session:
        project = session.get_one(Project, loop.project_id)
        project.config = {**project.config, "trigger": {"new_labels": 3, "quiet_s": 3600}}
        session.add_all(Event(project_id=loop.project_id, action="ANNOTATION_CREATED") for _ in range(2))
    Reconciler()()
    some_lost = triggers(loop)
    with transaction() as session:
        session.execute(sa.delete(Round).where(Round.project_id == loop.project_id))
        session.add(Event(project_id=loop.project_id, action="ANNOTATION_CREATED"))
    Reconciler()()

    assert some_lost == ["reconcile"]
    assert triggers(loop) == []  # all are told of: the trigger's quiet time is the trigger's

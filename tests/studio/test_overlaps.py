"""A second label: who is shown a labelled task again, when, and who is not."""

import pytest

from backend.errors import SecondOpinionsUnordered
from backend.studio.client import Studio
from backend.studio.publish import PublishPick, PublishPlan, publish
from tests.services.label_studio import TASK, Person, add_tasks

Picks = list[tuple[int, bool]]


def plan_of(picks: Picks, version: str = "v1+b1", closed: tuple[int, ...] = ()) -> PublishPlan:
    """A batch of (task, is asked again) pairs."""
    made = tuple(PublishPick(f"{task}", task, {}, None if again else "dog", is_again=again) for task, again in picks)
    return PublishPlan(version, "reorder", made, closed)


def is_done(studio: Studio, task_id: int) -> bool:
    return bool(studio.get(f"/api/tasks/{task_id}/")["is_labeled"])


def drawn_by(person: Person, project_id: int, size: int) -> list[int]:
    """The tasks that a person is given one after the other, answering each."""
    return [task for task in (person.label_next(project_id) for _ in range(size)) if task is not None]


def test_new_and_labelled_tasks_come_in_one_order_and_nobody_sees_their_own_again(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 8)
    one, two = people
    for task in ids[:3]:
        one.submit(task, "cat")
    two.submit(ids[3], "cat")
    ranked = [(ids[6], False), (ids[1], True), (ids[3], True), (ids[4], False), (ids[0], True)]

    publish(studio, project_id, plan_of(ranked), TASK)

    assert is_done(studio, ids[2])
    given = two.draw(project_id)
    assert given is not None
    assert given["id"] == ids[6]
    assert drawn_by(one, project_id, 2) == [ids[3], ids[4]]
    assert drawn_by(two, project_id, 3) == [ids[6], ids[1], ids[0]]
    assert all(is_done(studio, task) for task in (ids[0], ids[1], ids[3]))


def test_the_second_person_sees_neither_the_first_ones_label_nor_a_guess(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    [task] = add_tasks(studio, project_id, 1)
    one, two = people
    one.submit(task, "ship")

    publish(studio, project_id, plan_of([(task, True)]), TASK)

    given = two.draw(project_id)
    assert given is not None
    assert given["annotations"] == []
    assert [guess["result"] for guess in given["predictions"]] == [[]]


def test_publishing_again_asks_for_one_more_label_and_not_for_two(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 3)
    one, _ = people
    one.submit(ids[0], "cat")
    for _ in range(2):
        publish(studio, project_id, plan_of([(ids[0], True), (ids[1], False)]), TASK)

    row = studio.get(f"/api/tasks/{ids[0]}/")

    assert (row["overlap"], row["is_labeled"]) == (2, False)


def test_a_task_that_is_no_longer_asked_for_is_done_again(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 3)
    one, two = people
    one.submit(ids[0], "cat")
    publish(studio, project_id, plan_of([(ids[0], True)]), TASK)

    publish(studio, project_id, plan_of([(ids[2], False)], "v2+b2", closed=(ids[0],)), TASK)

    assert is_done(studio, ids[0])
    assert sorted(drawn_by(two, project_id, 9)) == [ids[1], ids[2]]


def test_a_project_that_wants_every_task_twice_is_refused_with_the_way_out(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 2)
    people[0].submit(ids[0], "cat")
    studio.patch(f"/api/projects/{project_id}/", {"maximum_annotations": 2})

    with pytest.raises(SecondOpinionsUnordered, match="Set Annotations per task to 1"):
        publish(studio, project_id, plan_of([(ids[0], True)]), TASK)


def test_a_deleted_task_is_nobodys_second_opinion(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 2)
    people[0].submit(ids[0], "cat")
    studio.delete(f"/api/tasks/{ids[0]}/")

    published = publish(studio, project_id, plan_of([(ids[0], True), (ids[1], False)]), TASK)

    assert published.task_ids == (None, ids[1])

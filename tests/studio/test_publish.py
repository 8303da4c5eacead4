"""What people draw after a batch was published, how often whoever publishes it, and wherever it died."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from backend.errors import NotPublished
from backend.studio.client import Studio
from backend.studio.publish import PublishPick, PublishPlan, publish
from tests.services.label_studio import LABELS, TASK, Person, add_tasks

Mode = Literal["reorder", "create"]
MODES: tuple[Mode, ...] = ("reorder", "create")


def plan_of(
    numbers: Sequence[int], task_ids: Sequence[int | None], version: str = "v1+b1", mode: Mode = "reorder"
) -> PublishPlan:
    picks = tuple(
        PublishPick(f"item-{n:04d}", task_id, {"image": f"http://images.example.com/{n}.jpg"}, LABELS[n % 3])
        for n, task_id in zip(numbers, task_ids, strict=True)
    )
    return PublishPlan(version, mode, picks)


def prepare(studio: Studio, project_id: int, mode: Mode, size: int = 30) -> list[int | None]:
    """The tasks of the pool where they are in Label Studio already; None for each where they are made when picked."""
    return [*add_tasks(studio, project_id, size)] if mode == "reorder" else [None] * size


def predictions_of(studio: Studio, project_id: int, version: str) -> dict[int, list[float]]:
    """Scores of a version's predictions by task."""
    found: dict[int, list[float]] = {}
    for prediction in studio.get("/api/predictions/", {"project": project_id}):
        if prediction["model_version"] == version:
            found.setdefault(prediction["task"], []).append(prediction["score"])
    return found


def tasks_of(studio: Studio, project_id: int) -> dict[int, str]:
    """The keys of all tasks, by id."""
    place = {"project": project_id, "page_size": 1000, "fields": "task_only", "include": "id,data"}
    return {task["id"]: task["data"]["nextbatch_key"] for task in studio.get("/api/tasks/", place)["tasks"]}


def draw_in_turn(people: tuple[Person, Person], project_id: int, size: int) -> list[str]:
    """The keys that two people get who both have a task open all the time, in the order of drawing."""
    keys: list[str] = []
    opened = [person.draw(project_id) for person in people]
    for turn in range(size):
        task = opened[turn % 2]
        assert task is not None
        keys.append(task["data"]["nextbatch_key"])
        people[turn % 2].submit(task["id"])
        if turn + 2 < size:
            opened[turn % 2] = people[turn % 2].draw(project_id)
    return keys


@pytest.mark.parametrize("mode", MODES)
def test_two_annotators_get_distinct_tasks_in_rank_order(
    studio: Studio, project_id: int, people: tuple[Person, Person], mode: Mode
) -> None:
    ids = prepare(studio, project_id, mode)
    ranked = [17, 3, 29, 8, 21, 0, 12, 5]
    published = publish(studio, project_id, plan_of(ranked, [ids[n] for n in ranked], mode=mode), TASK)

    drawn = draw_in_turn(people, project_id, len(ranked))

    assert drawn == [f"item-{n:04d}" for n in ranked]
    keys = tasks_of(studio, project_id)
    assert [keys[task_id] for task_id in published.task_ids] == drawn


@pytest.mark.parametrize("mode", MODES)
def test_a_refill_goes_on_with_what_is_left_and_then_with_the_new_picks(
    studio: Studio, project_id: int, people: tuple[Person, Person], mode: Mode
) -> None:
    ids = prepare(studio, project_id, mode)
    first = [9, 4, 26, 11, 2, 7]
    published = publish(studio, project_id, plan_of(first, [ids[n] for n in first], mode=mode), TASK)
    one, two = people
    one.label_next(project_id)
    two.label_next(project_id)
    held = one.draw(project_id)
    assert held is not None
    rest, new = first[2:], [28, 1, 15]
    known = dict(zip(first, published.task_ids, strict=True)) | {n: ids[n] for n in new}

    again = publish(studio, project_id, plan_of([*rest, *new], [known[n] for n in [*rest, *new]], "v2+b2", mode), TASK)

    assert again.task_ids[: len(rest)] == published.task_ids[2:]
    reopened = one.draw(project_id)
    assert reopened is not None
    assert reopened["id"] == held["id"]
    assert draw_in_turn(people, project_id, 7) == [f"item-{n:04d}" for n in [*rest, *new]]


@pytest.mark.parametrize("mode", MODES)
def test_people_who_draw_at_the_same_moment_each_go_down_the_ranking(
    studio: Studio, project_id: int, people: tuple[Person, Person], mode: Mode
) -> None:
    """Label Studio on SQLite looks for a lock and sets it in two steps: in the same instant, two may get one task."""
    ids = prepare(studio, project_id, mode)
    ranked = list(range(29, 21, -1))
    publish(studio, project_id, plan_of(ranked, [ids[n] for n in ranked], mode=mode), TASK)
    keys = [f"item-{n:04d}" for n in ranked]
    drawn: dict[int, list[str]] = {person.user_id: [] for person in people}

    def work(person: Person) -> None:
        while (task := person.draw(project_id)) is not None and task["data"]["nextbatch_key"] in keys:
            drawn[person.user_id].append(task["data"]["nextbatch_key"])
            person.submit(task["id"])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, people))

    assert {key for found in drawn.values() for key in found} == set(keys)
    for found in drawn.values():
        assert found == sorted(set(found), key=keys.index)


@pytest.mark.parametrize("mode", MODES)
def test_published_twice_is_there_once(studio: Studio, project_id: int, mode: Mode) -> None:
    ids = prepare(studio, project_id, mode)
    plan = plan_of([5, 2, 8], [ids[n] for n in (5, 2, 8)], mode=mode)
    first = publish(studio, project_id, plan, TASK)
    tasks = tasks_of(studio, project_id)

    second = publish(studio, project_id, plan, TASK)

    assert second.task_ids == first.task_ids
    assert tasks_of(studio, project_id) == tasks
    assert predictions_of(studio, project_id, plan.version) == {
        task_id: [pytest.approx((rank + 1) / 4)] for rank, task_id in enumerate(first.task_ids)
    }


def test_the_first_batch_needs_no_model(studio: Studio, project_id: int, people: tuple[Person, Person]) -> None:
    ids = add_tasks(studio, project_id, 12)
    picks = tuple(PublishPick(f"item-{n:04d}", ids[n], {}, None) for n in (7, 3, 10))

    publish(studio, project_id, PublishPlan("v0+b1", "reorder", picks), TASK)

    assert draw_in_turn(people, project_id, 3) == ["item-0007", "item-0003", "item-0010"]
    assert all(prediction["result"] == [] for prediction in studio.get("/api/predictions/", {"project": project_id}))


def test_people_see_what_the_model_says(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 3)

    publish(studio, project_id, plan_of([2], [ids[2]]), TASK)

    prediction = studio.get("/api/predictions/", {"task": ids[2]})[0]
    assert TASK.label_of(prediction) == LABELS[2]


@pytest.mark.parametrize("mode", MODES)
def test_versions_of_earlier_batches_go_and_other_peoples_stay(studio: Studio, project_id: int, mode: Mode) -> None:
    theirs = ("v7", "yolo+b2x", "xv1+b1", "v1+b1-copy", "undefined")
    ids = add_tasks(studio, project_id, 8)
    body = [{"task": ids[0], "result": [], "score": 0.5, "model_version": name} for name in (*theirs, "v0+b1")]
    studio.post(f"/api/projects/{project_id}/import/predictions", body)
    publish(studio, project_id, plan_of([4, 5], [ids[4], ids[5]], "v3+b9", mode), TASK)

    published = publish(studio, project_id, plan_of([6, 7], [ids[6], ids[7]], "v4+b10", mode), TASK)

    assert published.removed_versions == ("v3+b9",)
    assert set(studio.get(f"/api/projects/{project_id}/model-versions/")) == {*theirs, "v4+b10"}


def test_a_half_imported_version_is_imported_anew(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 6)
    plan = plan_of([3, 1, 5], [ids[n] for n in (3, 1, 5)])
    half = [{"task": ids[3], "result": [], "score": 0.9, "model_version": plan.version}]
    studio.post(f"/api/projects/{project_id}/import/predictions", half)

    publish(studio, project_id, plan, TASK)

    assert predictions_of(studio, project_id, plan.version) == {
        ids[3]: [pytest.approx(0.25)],
        ids[1]: [pytest.approx(0.5)],
        ids[5]: [pytest.approx(0.75)],
    }


def test_a_version_of_the_right_size_on_the_wrong_tasks_is_imported_anew(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 6)
    plan = plan_of([3, 1, 5], [ids[n] for n in (3, 1, 5)])
    wrong = [{"task": ids[3], "result": [], "score": s, "model_version": plan.version} for s in (0.1, 0.2, 0.3)]
    studio.post(f"/api/projects/{project_id}/import/predictions", wrong)

    publish(studio, project_id, plan, TASK)

    assert {task: len(scores) for task, scores in predictions_of(studio, project_id, plan.version).items()} == {
        ids[1]: 1,
        ids[3]: 1,
        ids[5]: 1,
    }


def test_a_task_that_somebody_deleted_is_left_out_and_named(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 6)
    plan = plan_of([4, 2, 0], [ids[n] for n in (4, 2, 0)])
    studio.delete(f"/api/tasks/{ids[2]}/")

    published = publish(studio, project_id, plan, TASK)

    assert published.task_ids == (ids[4], None, ids[0])
    assert draw_in_turn(people, project_id, 2) == ["item-0004", "item-0000"]


def test_a_created_task_that_somebody_deleted_is_made_again_and_served_at_its_rank(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    plan = plan_of([8, 6, 7], [None] * 3, mode="create")
    first = publish(studio, project_id, plan, TASK)
    studio.delete(f"/api/tasks/{first.task_ids[0]}/")

    second = publish(studio, project_id, plan, TASK)

    assert second.task_ids[1:] == first.task_ids[1:]
    assert draw_in_turn(people, project_id, 3) == ["item-0008", "item-0006", "item-0007"]


def test_doubles_go_unless_somebody_works_on_them(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    plan = plan_of([0, 1, 2], [None] * 3, mode="create")
    once, twice = add_tasks(studio, project_id, 3), add_tasks(studio, project_id, 3)
    people[0].submit(twice[1])
    draft = {"result": TASK.to_result("cat"), "lead_time": 1.0}
    people[1].http.post(f"/api/tasks/{twice[2]}/drafts", json=draft).raise_for_status()

    published = publish(studio, project_id, plan, TASK)

    assert published.task_ids == (once[0], twice[1], twice[2])
    assert set(tasks_of(studio, project_id)) == {once[0], twice[1], twice[2]}


def test_predictions_that_label_studio_drops_are_noticed(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 3)
    config = studio.get(f"/api/projects/{project_id}/")["label_config"].replace('value="dog"', 'value="wolf"')
    studio.patch(f"/api/projects/{project_id}/", {"label_config": config})

    with pytest.raises(NotPublished, match="2 of 3 predictions"):
        publish(studio, project_id, plan_of([0, 1, 2], ids), TASK)

    assert studio.get(f"/api/projects/{project_id}/")["model_version"] != "v1+b1"


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_takes_the_old_one_away(studio: Studio, project_id: int, mode: Mode) -> None:
    ids = prepare(studio, project_id, mode, size=3)
    publish(studio, project_id, plan_of([0, 1], ids[:2], "v1+b1", mode), TASK)

    published = publish(studio, project_id, PublishPlan("v1+b2", mode, ()), TASK)

    assert (published.task_ids, published.removed_versions) == ((), ("v1+b1",))
    assert not studio.get(f"/api/projects/{project_id}/")["model_version"]

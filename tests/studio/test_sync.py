"""Whatever happened in Label Studio while nobody listened is seen: made, changed, deleted, in any combination."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.studio.client import Studio
from backend.studio.sync import (
    AnnotationRecord,
    existing_tasks,
    pull,
    pull_tasks,
    tasks_of_keys,
    tasks_with_drafts,
)
from tests.services.label_studio import LABELS, TASK, Person, add_tasks


@dataclass
class Mirror:
    """What somebody knows who pulls now and then: every annotation, as the round's tables keep them."""

    studio: Studio
    project_id: int
    cursor: str | None = None
    known: dict[int, AnnotationRecord] = field(default_factory=dict)

    def pull(self) -> tuple[list[AnnotationRecord], list[int]]:
        """What came new or changed, and what is gone."""
        known = {number: record.updated_at for number, record in self.known.items()}
        pulled = pull(self.studio, self.project_id, TASK, self.cursor, known)
        self.cursor = pulled.cursor
        self.known |= {record.annotation_id: record for record in pulled.annotations}
        for number in pulled.deleted:
            del self.known[number]
        return list(pulled.annotations), list(pulled.deleted)

    def labels(self) -> dict[int, str | None]:
        return {number: record.label for number, record in self.known.items()}


def annotate(studio: Studio, task_id: int, label: str) -> int:
    return int(studio.post(f"/api/tasks/{task_id}/annotations/", {"result": TASK.to_result(label)})["id"])


def truth(studio: Studio, task_ids: list[int]) -> dict[int, str | None]:
    """All annotations, asked for task by task."""
    found: list[dict[str, Any]] = [
        one for task_id in task_ids for one in studio.get(f"/api/tasks/{task_id}/annotations/")
    ]
    return {one["id"]: TASK.label_of(one) for one in found}


def test_an_annotation_arrives_with_who_what_and_when(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    ids = add_tasks(studio, project_id, 2)
    before = dt.datetime.now(dt.UTC)
    annotation_id = people[0].submit(ids[1], "ship", lead_time_s=7.25)

    (record,), deleted = Mirror(studio, project_id).pull()

    assert not deleted
    assert (record.annotation_id, record.task_id, record.label) == (annotation_id, ids[1], "ship")
    assert (record.annotator, record.lead_time_s) == (str(people[0].user_id), 7.25)
    assert before <= record.created_at <= record.updated_at <= dt.datetime.now(dt.UTC)


def test_a_pull_after_which_nothing_happened_brings_nothing(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    annotate(studio, add_tasks(studio, project_id, 1)[0], "cat")
    mirror.pull()

    assert mirror.pull() == ([], [])


def test_an_empty_project_can_be_pulled(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)

    assert mirror.pull() == ([], [])
    assert mirror.pull() == ([], [])


def test_a_changed_label_arrives_under_the_same_id(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    number = annotate(studio, add_tasks(studio, project_id, 1)[0], "cat")
    mirror.pull()
    studio.patch(f"/api/annotations/{number}/", {"result": TASK.to_result("dog")})

    (record,), deleted = mirror.pull()

    assert (record.annotation_id, record.label, deleted) == (number, "dog", [])


def test_a_skip_is_an_annotation_without_a_label(
    studio: Studio, project_id: int, people: tuple[Person, Person]
) -> None:
    mirror = Mirror(studio, project_id)
    number = people[0].skip(add_tasks(studio, project_id, 1)[0])

    mirror.pull()

    assert mirror.labels() == {number: None}


def test_a_deleted_annotation_is_noticed(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    first, second = (annotate(studio, task_id, "cat") for task_id in add_tasks(studio, project_id, 2))
    mirror.pull()
    studio.delete(f"/api/annotations/{first}/")

    assert mirror.pull() == ([], [first])
    assert list(mirror.labels()) == [second]


def test_one_deleted_and_another_made_are_both_noticed(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    ids = add_tasks(studio, project_id, 2)
    first = annotate(studio, ids[0], "cat")
    mirror.pull()
    studio.delete(f"/api/annotations/{first}/")
    second = annotate(studio, ids[1], "dog")

    mirror.pull()

    assert mirror.labels() == {second: "dog"}


def test_annotations_of_deleted_tasks_are_gone(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    ids = add_tasks(studio, project_id, 3)
    numbers = [annotate(studio, task_id, "cat") for task_id in ids]
    mirror.pull()
    studio.delete(f"/api/tasks/{ids[1]}/")

    assert mirror.pull() == ([], [numbers[1]])


def test_annotations_deleted_in_the_data_manager_are_gone(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    ids = add_tasks(studio, project_id, 3)
    numbers = [annotate(studio, task_id, "cat") for task_id in ids]
    mirror.pull()
    chosen = {"selectedItems": {"all": False, "included": ids[:2]}, "project": project_id}
    studio.post("/api/dm/actions/", chosen, {"id": "delete_tasks_annotations", "project": project_id})

    assert mirror.pull() == ([], numbers[:2])


def test_imported_annotations_are_seen_though_no_event_tells_of_them(studio: Studio, project_id: int) -> None:
    mirror = Mirror(studio, project_id)
    mirror.pull()
    body = [{"data": {"image": "x.jpg"}, "annotations": [{"result": TASK.to_result("ship")}]} for _ in range(3)]
    studio.post(f"/api/projects/{project_id}/import", body)

    mirror.pull()

    assert list(mirror.labels().values()) == ["ship"] * 3


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["make", "change", "delete"]), st.integers(0, 5)), max_size=4), max_size=4
    )
)
def test_after_any_history_the_mirror_is_the_truth(
    studio: Studio, project_id: int, history: list[list[tuple[str, int]]]
) -> None:
    mirror = Mirror(studio, project_id)
    ids = add_tasks(studio, project_id, 6)
    there = truth(studio, ids)
    for pulls, steps in enumerate(history):
        for what, place in steps:
            task_id = ids[place]
            mine = [one["id"] for one in studio.get(f"/api/tasks/{task_id}/annotations/")]
            if what == "make":
                annotate(studio, task_id, LABELS[pulls % 3])
            elif mine and what == "change":
                studio.patch(f"/api/annotations/{mine[-1]}/", {"result": TASK.to_result(LABELS[place % 3])})
            elif mine:
                studio.delete(f"/api/annotations/{mine[-1]}/")
        mirror.pull()

        there = truth(studio, ids)
        assert {number: label for number, label in mirror.labels().items() if number in there} == there
        assert not {record.task_id for number, record in mirror.known.items() if number not in there} & set(ids)


def test_tasks_come_with_their_data_and_key(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 3)

    tasks = list(pull_tasks(studio, project_id))

    assert [task.task_id for task in tasks] == ids
    assert [task.key for task in tasks] == ["item-0000", "item-0001", "item-0002"]
    assert tasks[2].data["image"] == "http://images.example.com/2.jpg"


def test_tasks_are_found_by_key_however_many_keys(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 250)
    keys = [f"item-{n:04d}" for n in range(100, 300)]

    found = tasks_of_keys(studio, project_id, keys)

    assert {key: [task.task_id for task in tasks] for key, tasks in found.items()} == {
        f"item-{n:04d}": [ids[n]] for n in range(100, 250)
    }


def test_tasks_are_asked_for_by_id(studio: Studio, project_id: int) -> None:
    ids = add_tasks(studio, project_id, 3)

    assert existing_tasks(studio, project_id, [ids[0], ids[2], 10**9]) == {ids[0], ids[2]}
    assert existing_tasks(studio, project_id, []) == set()


def test_a_draft_of_whomever_is_seen(studio: Studio, project_id: int, people: tuple[Person, Person]) -> None:
    ids = add_tasks(studio, project_id, 3)
    draft = {"result": TASK.to_result("cat"), "lead_time": 1.0}
    people[1].http.post(f"/api/tasks/{ids[1]}/drafts", json=draft).raise_for_status()

    assert tasks_with_drafts(studio, project_id) == {ids[1]}

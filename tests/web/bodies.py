"""Webhook bodies in the shape that Label Studio 1.23 sends them."""

from typing import Any

Body = dict[str, Any]


def task(id_: int) -> Body:
    return {
        "id": id_,
        "data": {"image": f"https://example.org/{id_}.jpg", "note": "private words"},
        "meta": {},
        "created_at": "2026-01-01T10:00:00.000000Z",
        "is_labeled": True,
        "overlap": 1,
        "inner_id": id_,
        "total_annotations": 1,
        "file_upload": None,
    }


def annotation(id_: int, task_id: int, was_cancelled: bool = False) -> Body:
    choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
    return {
        "id": id_,
        "result": [] if was_cancelled else [choice],
        "was_cancelled": was_cancelled,
        "ground_truth": False,
        "lead_time": 2.5,
        "task": task_id,
        "project": 1,
        "completed_by": {"id": 1, "email": "person@example.org"},
        "updated_at": "2026-01-01T10:00:00.000000Z",
    }


def every_kind(project: Body) -> dict[str, tuple[Body, list[int], list[int]]]:
    """Name of the case to (body, task ids, annotation ids)."""
    cases: dict[str, tuple[Body, list[int], list[int]]] = {
        "created": ({"action": "ANNOTATION_CREATED", "annotation": annotation(7, 3), "task": task(3)}, [3], [7]),
        "skipped": ({"action": "ANNOTATION_CREATED", "annotation": annotation(8, 4, True), "task": task(4)}, [4], [8]),
        "updated": ({"action": "ANNOTATION_UPDATED", "annotation": annotation(7, 3), "task": task(3)}, [3], [7]),
        "bulk": (
            {
                "action": "ANNOTATIONS_CREATED",
                "annotation": [annotation(9, 5), annotation(10, 6)],
                "task": [task(5), task(6)],
            },
            [5, 6],
            [9, 10],
        ),
        "deleted": ({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 7}, {"id": 8}]}, [], [7, 8]),
        "tasks_created": ({"action": "TASKS_CREATED", "tasks": [task(1), task(2)]}, [1, 2], []),
        "tasks_deleted": ({"action": "TASKS_DELETED", "tasks": [{"id": 1}, {"id": 2}]}, [1, 2], []),
        "project_updated": ({"action": "PROJECT_UPDATED"}, [], []),
        "start_training": ({"action": "START_TRAINING"}, [], []),
    }
    return {name: ({**body, "project": project}, tasks, ids) for name, (body, tasks, ids) in cases.items()}

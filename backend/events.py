"""What Label Studio tells us: each webhook body becomes one small frozen event that carries ids and nothing else.

Bodies hold a project token and people's data, so nothing of them is kept or logged beyond the ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from backend.errors import MalformedEvent, UnknownEvent

MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class Event:
    """Something that happened in a Label Studio project. `task_ids` and `annotation_ids` are Label Studio's."""

    action: ClassVar[str]
    studio_project_id: int
    task_ids: tuple[int, ...] = ()
    annotation_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class AnnotationCreated(Event):
    """A person submitted an annotation, or skipped the task (`was_cancelled`)."""

    action = "ANNOTATION_CREATED"
    was_cancelled: bool = False


@dataclass(frozen=True)
class AnnotationUpdated(Event):
    """A person changed an annotation."""

    action = "ANNOTATION_UPDATED"
    was_cancelled: bool = False


@dataclass(frozen=True)
class AnnotationsCreated(Event):
    """Predictions were accepted in bulk; annotations and tasks come as lists."""

    action = "ANNOTATIONS_CREATED"


@dataclass(frozen=True)
class AnnotationsDeleted(Event):
    """Annotations are gone; Label Studio does not say of which tasks."""

    action = "ANNOTATIONS_DELETED"


@dataclass(frozen=True)
class TasksCreated(Event):
    """Tasks were imported or created."""

    action = "TASKS_CREATED"


@dataclass(frozen=True)
class TasksDeleted(Event):
    """Tasks are gone."""

    action = "TASKS_DELETED"


@dataclass(frozen=True)
class ProjectUpdated(Event):
    """A project's settings changed; its labelling configuration may have."""

    action = "PROJECT_UPDATED"


@dataclass(frozen=True)
class TrainingStarted(Event):
    """Somebody pressed "Start training"."""

    action = "START_TRAINING"


KINDS: Mapping[str, type[Event]] = {
    kind.action: kind
    for kind in (
        AnnotationCreated,
        AnnotationUpdated,
        AnnotationsCreated,
        AnnotationsDeleted,
        TasksCreated,
        TasksDeleted,
        ProjectUpdated,
        TrainingStarted,
    )
}


def parse(body: object) -> Event:
    """The event in a webhook's JSON body.

    Raises UnknownEvent for a kind that we do not read, MalformedEvent for a body that does not hold what its kind
    must. `project` may be missing only where an annotation or a task names it (webhooks without a payload do not).
    """
    if not isinstance(body, dict):
        raise MalformedEvent(problem="the body is no JSON object")
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise MalformedEvent(problem="it has no `action`")
    kind = KINDS.get(action)
    if kind is None:
        raise UnknownEvent(action=action[:64])
    project_id = _project_id(body)
    if kind is AnnotationCreated or kind is AnnotationUpdated:
        annotation = _object(body, "annotation")
        task_ids = (_id(body["task"], "task") if isinstance(body.get("task"), dict) else _task_of(annotation),)
        skipped = annotation.get("was_cancelled") is True
        return kind(project_id, task_ids, (_id(annotation, "annotation"),), was_cancelled=skipped)
    if kind is AnnotationsCreated:
        annotations, tasks = _list(body, "annotation"), body.get("task")
        tasks = _ids(tasks, "task") if isinstance(tasks, list) else tuple(_task_of(one) for one in annotations)
        return kind(project_id, tasks, _ids(annotations, "annotation"))
    if kind is AnnotationsDeleted:
        return kind(project_id, (), _ids(_list(body, "annotations"), "annotations"))
    if kind is TasksCreated or kind is TasksDeleted:
        return kind(project_id, _ids(_list(body, "tasks"), "tasks"))
    return kind(project_id)


def _project_id(body: Mapping[str, Any]) -> int:
    project = body.get("project")
    if isinstance(project, dict):
        return _id(project, "project")
    if project is not None:  # an id by itself, maybe as id.created_timestamp
        return studio_project_id(project)
    raise MalformedEvent(problem="it has no `project`; switch on `Send payload` in the webhook's settings")


def studio_project_id(given: object) -> int:
    """Label Studio's project id out of `id.created_timestamp`, as /setup and /predict carry it."""
    text = str(given).partition(".")[0] if isinstance(given, str | int) and not isinstance(given, bool) else ""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= MAX_ID and len(text) < 20):
        raise MalformedEvent(problem="`project` is no project id")
    return int(text)


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if not isinstance(value, dict):
        raise MalformedEvent(problem=f"`{key}` is no object")
    return value


def _list(body: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = body.get(key)
    if not isinstance(value, list):
        raise MalformedEvent(problem=f"`{key}` is no list")
    return value


def _ids(values: Sequence[Any], key: str) -> tuple[int, ...]:
    return tuple(_id(value, key) for value in values)


def _id(value: object, key: str) -> int:
    id_ = value.get("id") if isinstance(value, dict) else None
    if not isinstance(id_, int) or isinstance(id_, bool) or not 0 < id_ <= MAX_ID:
        raise MalformedEvent(problem=f"`{key}` has no id")
    return id_


def _task_of(annotation: object) -> int:
    return _id({"id": annotation.get("task")} if isinstance(annotation, dict) else None, "task")

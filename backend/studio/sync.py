"""What stands in Label Studio: its tasks, and the annotations that were made, changed or deleted since last time.

Events are best effort (one second, no retry, none for imports), so this is what keeps the two sides alike.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import SlowLabelStudio
from backend.studio.client import Studio
from backend.studio.labels import LabelTask

KEY = "nextbatch_key"
"""The field of a task's data that carries an item's key."""

_PAGE = 10_000  # Label Studio's largest; 10,000 tasks take 3.5 s in one page and 45 s in ten
_LIST_TIMEOUT_S = 300.0
# A transaction may commit after a later one was read: what was touched shortly before the cursor is read again.
_OVERLAP = dt.timedelta(seconds=60)
_KEYS_A_CALL = 100  # they travel in the address, of which proxies take 8 KB
_FEW_KEYS = 1_000
_LONGEST_LIST = 100_000


@dataclass(frozen=True)
class TaskRecord:
    """A task of Label Studio, its data as stored (addresses unresolved)."""

    task_id: int
    data: dict[str, Any]
    annotations: int = 0
    """How many annotations it has, skips included."""

    @property
    def key(self) -> str | None:
        """The key of the item that it was made from, where nextbatch made it."""
        key = self.data.get(KEY)
        return None if key is None else str(key)


@dataclass(frozen=True)
class AnnotationRecord:
    """What a person said; `label` is None for a skip and for an answer without exactly one choice. Times are UTC."""

    annotation_id: int
    task_id: int
    label: str | None
    annotator: str | None
    lead_time_s: float | None
    created_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True)
class Pulled:
    """New and changed annotations, ids of deleted ones, and where to go on from."""

    annotations: tuple[AnnotationRecord, ...]
    deleted: tuple[int, ...]
    cursor: str | None


def pull(
    studio: Studio, project_id: int, task: LabelTask, cursor: str | None, known: Mapping[int, dt.datetime]
) -> Pulled:
    """Annotations that differ from `known` (id to the time of its last change).

    Reads the tasks touched since `cursor` (every annotation touches its task), then compares how many annotations
    there should be with how many there are; only where that differs twice, which means deletions, all are listed.
    """
    since = None if cursor is None else dt.datetime.fromisoformat(cursor) - _OVERLAP
    deleted: tuple[int, ...] = ()
    for _ in range(2):  # somebody may submit between the two questions
        records, newest = _annotations(studio, project_id, task, since)
        if since is None or len(known.keys() | records.keys()) == _count(studio, project_id):
            break
    else:
        records, _ = _annotations(studio, project_id, task, None)
        since = None
    if since is None:
        deleted = tuple(sorted(known.keys() - records.keys()))
    changed = tuple(record for number, record in sorted(records.items()) if known.get(number) != record.updated_at)
    return Pulled(changed, deleted, cursor if newest is None else max(newest, cursor or newest))


def pull_tasks(studio: Studio, project_id: int) -> Iterator[TaskRecord]:
    """Every task of the project by id, read in pages of 10,000."""
    for row in list_tasks(studio, project_id, "id,data,total_annotations,cancelled_annotations"):
        yield _task(row)


def tasks_of_keys(studio: Studio, project_id: int, keys: Sequence[str]) -> dict[str, list[TaskRecord]]:
    """The tasks that carry one of `keys`, by key; several where something went wrong before, lowest id first."""
    found: dict[str, list[TaskRecord]] = {}
    wanted = set(keys)
    for row in _rows_in(studio, project_id, f"data.{KEY}", "String", list(keys)):
        record = _task(row)
        if record.key in wanted and record.key is not None:
            found.setdefault(record.key, []).append(record)
    for records in found.values():
        records.sort(key=lambda record: record.task_id)
    return found


def existing_tasks(studio: Studio, project_id: int, task_ids: Sequence[int]) -> set[int]:
    """Those of `task_ids` that are still there."""
    wanted = set(task_ids)
    return wanted & {int(row["id"]) for row in rows_of(studio, project_id, task_ids, "id")}


def tasks_with_drafts(studio: Studio, project_id: int) -> set[int]:
    """Tasks that somebody, whoever it is, has begun to answer and not submitted.

    Which tasks are locked, Label Studio tells nobody. It needs no care: whoever holds a lock is served that task first,
    and others are not served it, whatever its rank.
    """
    drafted = [condition("draft_exists", "equal", "Boolean", "true")]
    return {int(row["id"]) for row in list_tasks(studio, project_id, "id", drafted)}


def scores_of(studio: Studio, project_id: int, version: str) -> dict[int, list[float]]:
    """The scores of all predictions of a version, by task."""
    named = [condition("predictions_model_versions", "contains", "String", version)]
    rows = list_tasks(studio, project_id, "id,predictions,score,model_version", named, fields="all")
    scores = {
        int(row["id"]): [float(one["score"] or 0.0) for one in row["predictions"] if one["model_version"] == version]
        for row in rows
    }
    return {task_id: found for task_id, found in scores.items() if found}


def list_tasks(
    studio: Studio,
    project_id: int,
    include: str,
    conditions: Sequence[Mapping[str, Any]] = (),
    conjunction: str = "and",
    fields: str = "task_only",
) -> Iterator[dict[str, Any]]:
    """Rows of the Data Manager, restricted to `include` (it holds for nested objects too), ordered by id."""
    query = {"filters": {"conjunction": conjunction, "items": list(conditions)}, "ordering": ["tasks:id"]}
    for page in range(1, _LONGEST_LIST):
        answer = studio.get(
            "/api/tasks/",
            params={
                "project": project_id,
                "page": page,
                "page_size": _PAGE,
                "fields": fields,
                "include": include,
                "resolve_uri": "false",
                "query": json.dumps(query),
            },
            timeout_s=_LIST_TIMEOUT_S,
        )
        yield from answer["tasks"]
        if page * _PAGE >= answer["total"]:
            return
    raise SlowLabelStudio(url=studio.url, request="GET /api/tasks/", timeout_s=_LIST_TIMEOUT_S)


def condition(column: str, operator: str, kind: str, value: object) -> dict[str, Any]:
    """A filter of the Data Manager on a column such as `id` or `data.image`."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def rows_of(studio: Studio, project_id: int, task_ids: Sequence[int], include: str) -> Iterator[dict[str, Any]]:
    """At least the rows of these tasks that are still there; where they are many, all of the project's."""
    return _rows_in(studio, project_id, "id", "Number", list(task_ids), include)


def _rows_in(
    studio: Studio,
    project_id: int,
    column: str,
    kind: str,
    values: Sequence[str] | Sequence[int],
    include: str = "id,data,total_annotations,cancelled_annotations",
) -> Iterator[dict[str, Any]]:
    if len(values) > _FEW_KEYS:
        yield from list_tasks(studio, project_id, include)
        return
    for start in range(0, len(values), _KEYS_A_CALL):
        chosen = list(values[start : start + _KEYS_A_CALL])
        yield from list_tasks(studio, project_id, include, [condition(column, "in_list", kind, chosen)])


def _task(row: Mapping[str, Any]) -> TaskRecord:
    annotations = int(row.get("total_annotations") or 0) + int(row.get("cancelled_annotations") or 0)
    return TaskRecord(int(row["id"]), dict(row.get("data") or {}), annotations)


def _annotations(
    studio: Studio, project_id: int, task: LabelTask, since: dt.datetime | None
) -> tuple[dict[int, AnnotationRecord], str | None]:
    """Annotations by id, of tasks touched since then or of all, and the time of the newest touch."""
    conditions, conjunction = (
        [
            condition("total_annotations", "greater", "Number", 0),
            condition("cancelled_annotations", "greater", "Number", 0),
        ],
        "or",
    )
    if since is not None:
        conditions, conjunction = [condition("updated_at", "greater_or_equal", "Datetime", _utc(since))], "and"
    include = "id,annotations,updated_at,result,was_cancelled,completed_by,lead_time,created_at"
    rows = list_tasks(studio, project_id, include, conditions, conjunction, fields="all")
    records: dict[int, AnnotationRecord] = {}
    newest: str | None = None
    for row in rows:
        touched = _utc(dt.datetime.fromisoformat(row["updated_at"]))
        newest = touched if newest is None else max(newest, touched)
        records |= {record.annotation_id: record for record in _records(row["id"], row["annotations"] or (), task)}
    return records, newest


def _records(task_id: int, annotations: Iterable[Mapping[str, Any]], task: LabelTask) -> Iterator[AnnotationRecord]:
    for found in annotations:
        yield AnnotationRecord(
            annotation_id=int(found["id"]),
            task_id=int(task_id),
            label=task.label_of(found),
            annotator=_annotator(found.get("completed_by")),
            lead_time_s=None if found.get("lead_time") is None else float(found["lead_time"]),
            created_at=dt.datetime.fromisoformat(found["created_at"]),
            updated_at=dt.datetime.fromisoformat(found["updated_at"]),
        )


def _annotator(completed_by: Any) -> str | None:
    """Label Studio's id of the person; names and addresses stay there."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("id")
    return None if completed_by is None else str(completed_by)


def _count(studio: Studio, project_id: int) -> int:
    include = "total_annotations_number,skipped_annotations_number"
    counts = studio.get(f"/api/projects/{project_id}/", params={"include": include})
    return int(counts["total_annotations_number"] or 0) + int(counts["skipped_annotations_number"] or 0)


def _utc(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

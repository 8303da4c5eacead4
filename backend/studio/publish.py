"""Put a batch in front of people, and believe only what was read back. Running it again converges, wherever it died.

*reorder*: the batch's tasks get predictions under a version of their own, whose scores are the ranks.
*create*: the batch's tasks are made in rank order; each carries its item's key.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.errors import NotPublished
from backend.studio.client import Studio
from backend.studio.labels import LabelTask
from backend.studio.sync import KEY, TaskRecord, tasks_of_keys

OURS = re.compile(r"v\d+\+b\d+")
ATTEMPTS = 3
IMPORT_TIMEOUT_S = 300


@dataclass(frozen=True)
class PublishPick:
    """One item of the batch. `task_id` is None where there is no task yet; `label` is what the model says, if any."""

    key: str
    task_id: int | None
    data: Mapping[str, Any]
    label: str | None


@dataclass(frozen=True)
class PublishPlan:
    """A batch in rank order, and the version it is published as, such as ``v7+b12``."""

    version: str
    mode: Literal["reorder", "create"]
    picks: tuple[PublishPick, ...]


@dataclass(frozen=True)
class Publication:
    """What stands in Label Studio now: the batch's tasks in rank order."""

    version: str
    task_ids: tuple[int, ...]
    removed_versions: tuple[str, ...]


def publish(studio: Studio, project_id: int, plan: PublishPlan, task: LabelTask) -> Publication:
    """Publish the plan. An empty one (the pool is exhausted) takes the old batch away. Raises NotPublished."""
    if plan.mode == "create":
        ids = _create_tasks(studio, project_id, plan)
        sampling = "Sequential sampling"
    else:
        ids = tuple(pick.task_id or 0 for pick in plan.picks)
        sampling = "Uncertainty sampling"
    _import_predictions(studio, project_id, plan, ids, task)
    _serve(studio, project_id, plan.version if ids else "", sampling)
    return Publication(plan.version, ids, _remove_old_versions(studio, project_id, plan.version))


def _import_predictions(
    studio: Studio, project_id: int, plan: PublishPlan, ids: Sequence[int], task: LabelTask
) -> None:
    """Exactly one prediction a task under the plan's version, or the version is deleted and imported anew.

    Label Studio serves the lowest score first, and drops what is not inside (0, 1) without a word.
    """
    predictions = [
        {
            "task": task_id,
            "result": task.to_result(pick.label) if pick.label is not None and pick.label in task.choices else [],
            "score": (rank + 1) / (len(ids) + 1),
            "model_version": plan.version,
        }
        for rank, (pick, task_id) in enumerate(zip(plan.picks, ids, strict=True))
    ]
    for _ in range(ATTEMPTS):
        there = _versions(studio, project_id).get(plan.version, 0)
        if there == len(predictions):
            return
        if there:
            _delete_version(studio, project_id, plan.version)
        studio.post(f"/api/projects/{project_id}/import/predictions", predictions, timeout_s=IMPORT_TIMEOUT_S)
    found = _versions(studio, project_id).get(plan.version, 0)
    if found != len(predictions):
        raise NotPublished(version=plan.version, problem=f"{found} of {len(predictions)} predictions were stored")


def _serve(studio: Studio, project_id: int, version: str, sampling: str) -> None:
    """Make `version` the one whose scores order the queue. Predictions must be there first, or it is refused."""
    wanted = {"model_version": version, "sampling": sampling}
    path = f"/api/projects/{project_id}/"
    for _ in range(ATTEMPTS):
        found = studio.get(path)
        if all((found[name] or "") == value for name, value in wanted.items()):
            return
        studio.patch(path, wanted)
    raise NotPublished(version=version, problem=f"the project has {found['model_version']!r}, {found['sampling']!r}")


def _versions(studio: Studio, project_id: int) -> Mapping[str, int]:
    """How many predictions each version has."""
    found: Mapping[str, int] = studio.get(f"/api/projects/{project_id}/model-versions/")
    return found


def _delete_version(studio: Studio, project_id: int, version: str) -> None:
    path = f"/api/projects/{project_id}/model-versions/"
    studio.delete(path, {"model_version": version}, timeout_s=IMPORT_TIMEOUT_S)


def _remove_old_versions(studio: Studio, project_id: int, current: str) -> tuple[str, ...]:
    """Delete the predictions of earlier batches; other people's versions do not look like ours and stay."""
    old = tuple(name for name in _versions(studio, project_id) if OURS.fullmatch(name) and name != current)
    for name in old:
        _delete_version(studio, project_id, name)
    return old


def _create_tasks(studio: Studio, project_id: int, plan: PublishPlan) -> tuple[int, ...]:
    """One task an item, with ids that rise with the rank, because "Sequential sampling" serves by id."""
    for _ in range(ATTEMPTS):
        there = _tasks_by_key(studio, project_id, plan)
        doubles = [one for found in there.values() for one in found[1:] if not one.annotations]
        ordered = [there[pick.key][0] for pick in plan.picks if there.get(pick.key)]
        stale = [one.task_id for one in ordered[_first_late(ordered) :] if not one.annotations]
        missing = [pick for pick in plan.picks if not there.get(pick.key)]
        if not doubles and not missing and not stale:
            return tuple(one.task_id for one in ordered)
        for task_id in {*stale, *(one.task_id for one in doubles)}:
            studio.delete(f"/api/tasks/{task_id}/")
        if missing and not stale:
            tasks = [{"data": {**pick.data, KEY: pick.key}} for pick in missing]
            studio.post(f"/api/projects/{project_id}/import", tasks, timeout_s=IMPORT_TIMEOUT_S)
    raise NotPublished(version=plan.version, problem=f"{len(missing)} of {len(plan.picks)} tasks are not there")


def _tasks_by_key(studio: Studio, project_id: int, plan: PublishPlan) -> dict[str, list[TaskRecord]]:
    """The tasks of the plan's items, by key: annotated ones first, then by id."""
    found = tasks_of_keys(studio, project_id, [pick.key for pick in plan.picks])
    return {key: sorted(tasks, key=lambda one: (not one.annotations, one.task_id)) for key, tasks in found.items()}


def _first_late(tasks: Sequence[TaskRecord]) -> int:
    """The first place whose id is lower than the one before it; the end where there is none."""
    for place in range(1, len(tasks)):
        if tasks[place].task_id < tasks[place - 1].task_id:
            return place
    return len(tasks)

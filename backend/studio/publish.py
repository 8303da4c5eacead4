"""Put a batch in front of people, and believe only what was read back. Running it again converges, wherever it died.

*reorder*: the batch's tasks get predictions under a version of their own, whose scores are the ranks.
*create*: the batch's tasks are made in rank order; each carries its item's key.
"""

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.errors import NoSuchPage, NotPublished
from backend.studio import overlaps
from backend.studio.client import Studio
from backend.studio.labels import LabelTask
from backend.studio.sync import KEY, TaskRecord, existing_tasks, scores_of, tasks_of_keys, tasks_with_drafts

OURS = re.compile(r"v\d+\+b\d+")
ATTEMPTS = 3
IMPORT_TIMEOUT_S = 300


@dataclass(frozen=True)
class PublishPick:
    """One item of the batch. `task_id` is None where there is no task yet; `label` is what the model says, if any.

    `is_again`: its task has labels already, and one more is wanted, by somebody else.
    """

    key: str
    task_id: int | None
    data: Mapping[str, Any]
    label: str | None
    is_again: bool = False


@dataclass(frozen=True)
class PublishPlan:
    """A batch in rank order, and the version it is published as, such as ``v7+b12``.

    `closed`: tasks for which an earlier batch wanted one more label, and this one does not.
    """

    version: str
    mode: Literal["reorder", "create"]
    picks: tuple[PublishPick, ...]
    closed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Publication:
    """What stands in Label Studio now: the batch's tasks in rank order, None for one that somebody deleted."""

    version: str
    task_ids: tuple[int | None, ...]
    removed_versions: tuple[str, ...]


def publish(studio: Studio, project_id: int, plan: PublishPlan, task: LabelTask) -> Publication:
    """Publish the plan. An empty one (the pool is exhausted) takes the old batch away. Raises NotPublished."""
    ids: tuple[int | None, ...]
    if plan.mode == "create":
        ids = _create_tasks(studio, project_id, plan)
    else:
        there = existing_tasks(studio, project_id, [pick.task_id for pick in plan.picks if pick.task_id is not None])
        ids = tuple(pick.task_id if pick.task_id in there else None for pick in plan.picks)
    predictions = _predictions(plan, ids, task)
    _import_predictions(studio, project_id, plan.version, predictions)
    again = [one for pick, one in zip(plan.picks, ids, strict=True) if pick.is_again and one is not None]
    overlaps.reopen(studio, project_id, again)
    overlaps.close(studio, project_id, plan.closed)
    _serve(studio, project_id, plan.version if predictions else "", _sampling(plan.mode, ids))
    return Publication(plan.version, ids, _remove_old_versions(studio, project_id, plan.version))


def _sampling(mode: Literal["reorder", "create"], ids: Sequence[int | None]) -> str:
    """By id where ids rise with the rank: that order holds among any number of project members, too.

    They do not rise where a task of the batch was deleted and made again; then the predictions' scores order the queue.
    """
    if mode == "create" and all(a is not None and b is not None and a < b for a, b in itertools.pairwise(ids)):
        return "Sequential sampling"
    return "Uncertainty sampling"


def _predictions(plan: PublishPlan, ids: Sequence[int | None], task: LabelTask) -> list[dict[str, Any]]:
    """One a task that is there. Label Studio serves the lowest score first, and drops what is not inside (0, 1)."""
    present = [(pick, task_id) for pick, task_id in zip(plan.picks, ids, strict=True) if task_id is not None]
    return [
        {
            "task": task_id,
            "result": task.to_result(pick.label) if pick.label is not None and task.question.knows(pick.label) else [],
            "score": (rank + 1) / (len(present) + 1),
            "model_version": plan.version,
        }
        for rank, (pick, task_id) in enumerate(present)
    ]


def _import_predictions(
    studio: Studio, project_id: int, version: str, predictions: Sequence[Mapping[str, Any]]
) -> None:
    """Exactly these under that version, in one call; else the version is deleted and imported anew."""
    wanted = {int(one["task"]): [round(float(one["score"]), 9)] for one in predictions}
    for attempt in range(ATTEMPTS + 1):
        found = scores_of(studio, project_id, version) if _versions(studio, project_id).get(version) else {}
        if {task_id: [round(score, 9) for score in scores] for task_id, scores in found.items()} == wanted:
            return
        if attempt == ATTEMPTS:
            stored = sum(map(len, found.values()))
            raise NotPublished(version=version, problem=f"{stored} of {len(wanted)} predictions were stored")
        if found:
            _delete_version(studio, project_id, version)
        if predictions:
            studio.post(f"/api/projects/{project_id}/import/predictions", list(predictions), timeout_s=IMPORT_TIMEOUT_S)


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
    """One task an item, made in rank order. Tasks that are there keep their ids: somebody may have one open."""
    for _ in range(ATTEMPTS):
        found = tasks_of_keys(studio, project_id, [pick.key for pick in plan.picks])
        there = _without_doubles(studio, project_id, found)
        missing = [pick for pick in plan.picks if pick.key not in there]
        if not missing:
            return tuple(there[pick.key].task_id for pick in plan.picks)
        tasks = [{"data": {**pick.data, KEY: pick.key}} for pick in missing]
        studio.post(f"/api/projects/{project_id}/import", tasks, timeout_s=IMPORT_TIMEOUT_S)
    raise NotPublished(version=plan.version, problem=f"{len(missing)} of {len(plan.picks)} tasks are not there")


def _without_doubles(
    studio: Studio, project_id: int, found: Mapping[str, Sequence[TaskRecord]]
) -> dict[str, TaskRecord]:
    """One task a key: the one that is worked on, else the oldest. Doubles that nobody worked on are deleted."""
    if all(len(tasks) == 1 for tasks in found.values()):
        return {key: tasks[0] for key, tasks in found.items()}
    drafted = tasks_with_drafts(studio, project_id)
    kept: dict[str, TaskRecord] = {}
    for key, tasks in found.items():
        kept[key], *doubles = sorted(tasks, key=lambda one: (not one.annotations, one.task_id not in drafted))
        for double in doubles:
            if not double.annotations and double.task_id not in drafted:
                with contextlib.suppress(NoSuchPage):
                    studio.delete(f"/api/tasks/{double.task_id}/")
    return kept

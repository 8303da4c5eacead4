"""One more label for a task that has some: how many people Label Studio asks is a number of each task, its overlap.

A task is done when as many people labelled it as its overlap says, and is then served to nobody. Raised by one, it
comes back into the queue, at the place that its prediction's score gives it, for everybody who has not labelled it.
"""

from collections.abc import Sequence
from typing import Any

from backend.errors import SecondOpinionsUnordered
from backend.studio.client import Studio
from backend.studio.sync import rows_of

_COLUMNS = "id,overlap,is_labeled,total_annotations,cancelled_annotations"


def reopen(studio: Studio, project_id: int, task_ids: Sequence[int]) -> None:
    """Let one more person label each of these tasks; those that wait for one already are left as they are.

    Raises SecondOpinionsUnordered where the project wants several annotations of every task.
    """
    if not task_ids:
        return
    project = studio.get(f"/api/projects/{project_id}/")
    if int(project["maximum_annotations"] or 1) > 1:
        raise SecondOpinionsUnordered(count=len(task_ids), wanted=project["maximum_annotations"])
    for row in _rows(studio, project_id, task_ids):
        # A skip counts as an annotation where skipped tasks are to be ignored.
        skips = int(row["cancelled_annotations"] or 0) if project["skip_queue"] == "IGNORE_SKIPPED" else 0
        wanted = int(row["total_annotations"] or 0) + skips + 1
        if row["is_labeled"] or int(row["overlap"]) < wanted:
            studio.patch(f"/api/tasks/{row['id']}/", {"overlap": wanted, "is_labeled": False})


def close(studio: Studio, project_id: int, task_ids: Sequence[int]) -> None:
    """Let these tasks be done with the labels that they have; those without any are left as they are."""
    for row in _rows(studio, project_id, task_ids):
        labels = int(row["total_annotations"] or 0)
        if labels and not row["is_labeled"]:
            studio.patch(f"/api/tasks/{row['id']}/", {"overlap": labels, "is_labeled": True})


def _rows(studio: Studio, project_id: int, task_ids: Sequence[int]) -> list[dict[str, Any]]:
    wanted = set(task_ids)
    if not wanted:
        return []
    return [row for row in rows_of(studio, project_id, sorted(wanted), _COLUMNS) if int(row["id"]) in wanted]

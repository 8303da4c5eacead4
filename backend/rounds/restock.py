"""Between batches: what the pool's source holds now becomes items, and in reorder mode tasks."""

from typing import Any

import structlog

from backend.database import Project, reading, transaction
from backend.errors import BadLabelConfig, NextbatchError
from backend.pool import catalog
from backend.pool.listing import Listing, list_pool
from backend.pool.refresh import refresh
from backend.rounds import alarms
from backend.rounds.encoding import source_config
from backend.rounds.source import import_tasks, open_studio
from backend.settings import ProjectConfig
from backend.studio import connect
from backend.studio.labels import LabelTask

log = structlog.get_logger()


def restock(project_id: int) -> dict[str, Any]:
    """Bring the catalogue up to the source. A source that cannot be listed is an alert: the batch is out already."""
    try:
        return take_in(project_id)
    except NextbatchError as problem:
        if problem.is_passing:
            raise
        with transaction() as session:
            alarms.write(session, project_id, "warn", "pool_unlisted", str(problem))
        log.warning("restock.failed", project=project_id, problem=str(problem))
        return {"restock": str(problem)}


def take_in(project_id: int) -> dict[str, Any]:
    """The same, and what a source that cannot be listed raises is raised."""
    with reading() as session:
        project = session.get_one(Project, project_id)
    pool = project.settings.pool
    listing = list_items(project.settings, LabelTask.parse(project.label_config))
    if listing is None:
        return {}
    seen = refresh(project_id, listing, pool.max_items, project.settings.seed)
    if project.settings.needs_tasks:
        _import(project)
    for line in listing.skipped.lines():
        log.info("restock.skipped", project=project.name, what=line)
    return {"items_added": seen.added, "items_changed": seen.changed, "items_gone": seen.gone}


def list_items(config: ProjectConfig, task: LabelTask) -> Listing | None:
    """What the pool's source holds now, if it is not Label Studio's tasks. Raises BadLabelConfig."""
    if task.is_inline and config.pool.source in ("folder", "s3", "ftp"):
        problem = f"<Text name={task.object!r}> shows what stands in a task, and a {config.pool.source} gives addresses"
        raise BadLabelConfig(problem=problem, mend='Set valueType="url" there.')
    return list_pool(config.pool, source_config(config), task.kind)


def _import(project: Project) -> None:
    """Tasks for the items that have none; they exist once, by key."""
    task = LabelTask.parse(project.label_config)
    with reading() as session:
        listed = catalog.listed_items(session, project.id, needs_no_task=True)
    if not listed:
        return
    tasks = [connect.TaskToImport(key, {**data, task.data_key: uri}, None) for key, uri, data in listed]
    with open_studio() as studio:
        import_tasks(studio, project, tasks, task)

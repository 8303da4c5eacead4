"""What a project asks people, and where in Label Studio; an unreadable configuration asks nothing."""

from urllib.parse import parse_qs, urlsplit

from backend.database import Project
from backend.errors import NextbatchError
from backend.pool.http import shown
from backend.settings import settings
from backend.studio.labels import LabelTask

_LOCAL_FILES = "/data/local-files/"
_MOST_TEXT = 400
MOST_LISTED = 2_000  # characters: a list of 200 texts stays below half a megabyte


def task_of(project: Project) -> LabelTask | None:
    """The labelling task, or None where the configuration cannot be read."""
    try:
        return LabelTask.parse(project.label_config)
    except NextbatchError:
        return None


def holds_texts(project: Project) -> bool:
    """Whether items are texts that stand in the tasks, and no addresses."""
    task = task_of(project)
    return task is not None and task.is_inline


def studio_link(project: Project, task_id: int | None = None) -> str | None:
    """The address of the project, or of one of its tasks, in Label Studio; None where it is not known."""
    base = settings().label_studio_url
    if base is None or project.studio_project_id is None or not base.startswith(("http://", "https://")):
        return None
    page = f"{base}/projects/{project.studio_project_id}/data"
    return page if task_id is None else f"{page}?task={task_id}"


def listed_uri(uri: str, is_inline: bool) -> str:
    """An item's address for lists, or its text, of which a long one is cut."""
    return uri if not is_inline or len(uri) <= MOST_LISTED else uri[:MOST_LISTED] + "…"


def item_name(uri: str, is_inline: bool) -> str:
    """What a person may read of an item: its text, or its address without login and query (signatures are there)."""
    if is_inline:
        return uri if len(uri) <= _MOST_TEXT else uri[:_MOST_TEXT] + "…"
    if uri.startswith(_LOCAL_FILES):
        return parse_qs(urlsplit(uri).query).get("d", [""])[0][-100:]
    return shown(uri)

"""Join a Label Studio project to nextbatch: project, tasks, ML backend, webhook. Done twice, it changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import (
    BackendRefused,
    HalfConnected,
    LabelStudioRefused,
    LocalFilesRefused,
    MissingSetting,
    NoSuchPage,
    NoSuchProject,
    NotAllowed,
    NotPublished,
)
from backend.studio.client import Studio
from backend.studio.labels import LabelTask
from backend.studio.sync import KEY, tasks_of_keys

SECRET_HEADER = "X-Nextbatch-Secret"  # noqa: S105 - the header's name, not its value
WEBHOOK_ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)
IMPORT_CHUNK = 5_000
IMPORT_TIMEOUT_S = 600
CONNECT_TIMEOUT_S = 60

Progress = Callable[[str], None]


@dataclass(frozen=True)
class StudioProject:
    """A project in Label Studio."""

    id: int
    label_config: str
    created: bool


@dataclass(frozen=True)
class TaskToImport:
    """A task to make; `key` is its item's, and `label`, where given, becomes an annotation in the same import."""

    key: str
    data: Mapping[str, Any]
    label: str | None


def ensure_project(
    studio: Studio, title: str, label_config: str | None, project_id: int | None = None
) -> StudioProject:
    """The project with that id; else the one with that title; else a new one. Raises MissingSetting without labels."""
    if project_id is not None:
        try:
            found = studio.get(f"/api/projects/{project_id}/")
        except NoSuchPage:
            raise NoSuchProject(url=studio.url, project_id=project_id) from None
        return StudioProject(int(found["id"]), str(found["label_config"]), created=False)
    listed = studio.get("/api/projects/", {"title": title, "page_size": 100})
    same = [project for project in listed["results"] if project["title"] == title]
    if same:
        oldest = min(same, key=lambda project: int(project["id"]))
        return ensure_project(studio, title, label_config, project_id=int(oldest["id"]))
    if label_config is None:
        raise MissingSetting(
            name="label_studio.labels", mend="Give the classes of a new project, or its label_config, or a project_id."
        )
    LabelTask.parse(label_config)
    made = studio.post("/api/projects/", {"title": title, "label_config": label_config})
    return StudioProject(int(made["id"]), str(made["label_config"]), created=True)


def import_tasks(
    studio: Studio, project_id: int, tasks: Sequence[TaskToImport], task: LabelTask, progress: Progress
) -> dict[str, int]:
    """Make the tasks that are not there yet. Returns the task id of every key."""
    wanted = {one.key for one in tasks}
    there = _ids_by_key(studio, project_id, wanted)
    missing = [one for one in tasks if one.key not in there]
    for start in range(0, len(missing), IMPORT_CHUNK):
        chunk = missing[start : start + IMPORT_CHUNK]
        body: list[dict[str, Any]] = [
            {
                "data": dict(one.data) | {KEY: one.key},
                "annotations": [] if one.label is None else [{"result": task.to_result(one.label)}],
            }
            for one in chunk
        ]
        studio.post(f"/api/projects/{project_id}/import", body, timeout_s=IMPORT_TIMEOUT_S)
        progress(f"imported {start + len(chunk)} of {len(missing)} tasks")
    if missing:
        there = _ids_by_key(studio, project_id, wanted)
    lost = wanted - there.keys()
    if lost:
        raise NotPublished(version="of tasks", problem=f"{len(lost)} of {len(wanted)} tasks were not stored")
    return there


def _ids_by_key(studio: Studio, project_id: int, wanted: set[str]) -> dict[str, int]:
    """The lowest task id of every wanted key that is there."""
    return {key: tasks[0].task_id for key, tasks in tasks_of_keys(studio, project_id, sorted(wanted)).items()}


def backend_title(name: str) -> str:
    """What our entry among a project's ML backends is called."""
    return f"nextbatch {name}"


def ensure_backend(
    studio: Studio, project_id: int, url: str, title: str, username: str | None, password: str | None
) -> int:
    """Our entry among the project's ML backends, made or brought up to date. Returns its id.

    Making one sets the project's model version to the backend's title, which empties the score column and makes the
    queue random; so it is taken back. Raises BackendRefused.
    """
    wanted: dict[str, Any] = {"project": project_id, "url": url, "title": title, "is_interactive": False}
    if username and password:
        wanted |= {"auth_method": "BASIC_AUTH", "basic_auth_user": username, "basic_auth_pass": password}
    ours = [one for one in studio.get("/api/ml/", {"project": project_id}) if one["url"].rstrip("/") == url.rstrip("/")]
    if ours and not (username and password):
        return int(ours[0]["id"])
    before = studio.get(f"/api/projects/{project_id}/")["model_version"]
    try:
        if ours:
            made = studio.patch(f"/api/ml/{ours[0]['id']}", wanted, timeout_s=CONNECT_TIMEOUT_S)
        else:
            made = studio.post("/api/ml/", wanted, timeout_s=CONNECT_TIMEOUT_S)
    except (LabelStudioRefused, NotAllowed) as refusal:
        raise BackendRefused(url=url, problem=refusal) from refusal
    mend_model_version(studio, project_id, title, before)
    return int(made["id"])


def mend_model_version(studio: Studio, project_id: int, title: str, wanted: str | None = "") -> bool:
    """Take the backend's title back out of the project's model version; whether it was there."""
    if studio.get(f"/api/projects/{project_id}/")["model_version"] != title:
        return False
    studio.patch(f"/api/projects/{project_id}/", {"model_version": wanted or ""})
    return True


def ensure_webhook(studio: Studio, project_id: int, url: str, secret: str | None) -> int:
    """Our webhook with its secret; the automatic one, which has none, and doubles are taken away. Returns its id.

    Raises HalfConnected where Label Studio refuses the address.
    """
    headers: dict[str, str] = {SECRET_HEADER: secret} if secret else {}
    wanted = {
        "project": project_id,
        "url": url,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "headers": headers,
        "is_active": True,
    }
    # One with our header at another address is ours from before nextbatch moved.
    candidates = [
        hook
        for hook in webhooks(studio, project_id)
        if hook["url"] == url or SECRET_HEADER in (hook.get("headers") or {})
    ]
    ours = [hook for hook in candidates if hook["url"] == url and is_ours(hook, headers)]
    keep = int(ours[0]["id"]) if ours else None
    if keep is None:
        try:
            keep = int(studio.post("/api/webhooks/", wanted)["id"])
        except (NotAllowed, LabelStudioRefused) as refusal:
            raise HalfConnected(url=url, problem=refusal) from refusal
    for hook in candidates:
        if int(hook["id"]) != keep:
            studio.delete(f"/api/webhooks/{hook['id']}/")
    return keep


def webhooks(studio: Studio, project_id: int) -> list[dict[str, Any]]:
    """All webhooks of the project."""
    found: list[dict[str, Any]] = studio.get("/api/webhooks/", {"project": project_id})
    return [hook for hook in found if hook.get("project") == project_id]


def is_ours(hook: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether a webhook is as `ensure_webhook` makes it."""
    return (
        bool(hook.get("is_active"))
        and not hook.get("send_for_all_actions")
        and dict(hook.get("headers") or {}) == dict(headers)
        and set(hook.get("actions") or ()) == set(WEBHOOK_ACTIONS)
    )


def ensure_local_files(studio: Studio, project_id: int, folder: Path) -> None:
    """Let the project's pages show `/data/local-files/?d=…` below `folder`. Nothing is imported by it.

    Label Studio refuses its own document root ("by security reasons"); there, each folder in it is shown instead.
    Raises LocalFilesRefused where it serves no files from there.
    """
    path = folder.resolve()
    shown = {Path(storage["path"]) for storage in studio.get("/api/storages/localfiles", {"project": project_id})}
    if path in shown:
        return
    try:
        _show(studio, project_id, path)
    except LabelStudioRefused as refusal:
        if "cannot be the same as" not in str(refusal):
            raise LocalFilesRefused(folder=path, problem=refusal) from refusal
        for below in sorted(one for one in path.iterdir() if one.is_dir() and one not in shown):
            _show(studio, project_id, below)


def _show(studio: Studio, project_id: int, folder: Path) -> None:
    body = {"project": project_id, "path": str(folder), "title": f"nextbatch: {folder.name}", "use_blob_urls": True}
    studio.post("/api/storages/localfiles", body)

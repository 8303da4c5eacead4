"""A real Label Studio for the whole session, people who draw tasks from it, and a project for each test."""

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend import environments
from backend.processes import free_port
from backend.settings import settings
from backend.studio import server as server_module
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, image_config
from backend.studio.server import Account, LabelStudioServer

LABELS = ("cat", "dog", "ship")
TASK = LabelTask.parse(image_config(LABELS))


@dataclass(frozen=True)
class Person:
    """An annotator with an account of their own, drawing from the project's queue as the page does."""

    user_id: int
    http: httpx.Client = field(repr=False)

    def draw(self, project_id: int) -> dict[str, Any] | None:
        """The task that Label Studio shows this person next; it stays theirs until they submit. None: no task left."""
        answer = self.http.get(f"/api/projects/{project_id}/next")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        task: dict[str, Any] = answer.raise_for_status().json()
        return task

    def submit(self, task_id: int, label: str = "cat", lead_time_s: float = 2.5) -> int:
        """Answer a task; the annotation's id."""
        body = {"result": TASK.to_result(label), "lead_time": lead_time_s}
        return int(self.http.post(f"/api/tasks/{task_id}/annotations/", json=body).raise_for_status().json()["id"])

    def skip(self, task_id: int) -> int:
        body = {"result": [], "was_cancelled": True}
        return int(self.http.post(f"/api/tasks/{task_id}/annotations/", json=body).raise_for_status().json()["id"])

    def label_next(self, project_id: int, label: str = "cat") -> int | None:
        """Draw and answer one task; its id."""
        task = self.draw(project_id)
        if task is not None:
            self.submit(task["id"], label)
        return None if task is None else int(task["id"])


@pytest.fixture(scope="session")
def python_env() -> Path:
    """The environment that Label Studio is installed in. Missing, it is built in CI and skips elsewhere."""
    if given := os.environ.get("NEXTBATCH_LABEL_STUDIO_ENV"):
        return Path(given)
    if not environments.is_ready("label-studio", environments.LABEL_STUDIO) and not os.environ.get("CI"):
        pytest.skip("Label Studio is missing: run python -m tests.services")
    settings.cache_clear()
    return environments.ensure("label-studio", environments.LABEL_STUDIO)


@pytest.fixture(scope="session")
def server(python_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A running Label Studio with one administrator and nothing in it. It may show files of `server.local_files`."""
    folder = tmp_path_factory.mktemp("label-studio")
    (folder / "files").mkdir()
    running = LabelStudioServer(
        python_env, folder / "data", free_port(), Account.random(), local_files=folder / "files"
    )
    plain = server_module._environment
    with pytest.MonkeyPatch.context() as patch:
        # It tells a webhook once. The second that it gives is a promise of the web process's own tests.
        patch.setattr(server_module, "_environment", lambda *given: plain(*given) | {"WEBHOOK_TIMEOUT": "20"})
        running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def studio(server: LabelStudioServer) -> Iterator[Studio]:
    """The administrator's connection."""
    with Studio(server.url, server.account.token) as connection:
        yield connection


@pytest.fixture(scope="session")
def personal_token(studio: Studio) -> str:
    """A personal access token of the administrator, as a user copies it from the account page; one may have one."""
    kinds = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True, "api_token_ttl_days": 30}
    studio.post("/api/jwt/settings", kinds)
    return str(studio.post("/api/token/")["token"])


@pytest.fixture(scope="session")
def people(studio: Studio) -> Iterator[tuple[Person, Person]]:
    """Two annotators, signed up through the organisation's invitation."""
    invitation = studio.get("/api/invite")["invite_url"]
    pair = (_sign_up(studio.url, invitation), _sign_up(studio.url, invitation))
    yield pair
    for person in pair:
        person.http.close()


def _sign_up(url: str, invitation: str) -> Person:
    form = {"email": f"{uuid.uuid4().hex[:12]}@example.com", "password": uuid.uuid4().hex}
    with httpx.Client(base_url=url, trust_env=False, follow_redirects=True, timeout=30) as browser:
        page = browser.get(invitation).text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token is not None
        browser.post(invitation, data={**form, "csrfmiddlewaretoken": token[1]}, headers={"Referer": url})
        me = browser.get("/api/current-user/whoami").raise_for_status().json()
        key = browser.get("/api/current-user/token").raise_for_status().json()["token"]
    http = httpx.Client(base_url=url, trust_env=False, timeout=30, headers={"Authorization": f"Token {key}"})
    return Person(int(me["id"]), http)


@pytest.fixture
def project_id(studio: Studio) -> int:
    """A new, empty project with the labels of `LABELS`."""
    body = {"title": f"test {uuid.uuid4().hex[:12]}", "label_config": image_config(LABELS)}
    return int(studio.post("/api/projects/", body)["id"])


def add_tasks(studio: Studio, project_id: int, size: int, first: int = 0) -> list[int]:
    """Tasks with the keys item-0000, item-0001, …; their ids."""
    body = [
        {"data": {"image": f"http://images.example.com/{n}.jpg", "nextbatch_key": f"item-{n:04d}"}}
        for n in range(first, first + size)
    ]
    answer = studio.post(f"/api/projects/{project_id}/import", body, {"return_task_ids": "true"}, timeout_s=120)
    return [int(task_id) for task_id in answer["task_ids"]]

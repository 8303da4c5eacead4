"""A project is joined to nextbatch once, however often it is done, and with our webhook alone."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.database import Project, transaction
from backend.errors import BackendRefused, BadLabelConfig, HalfConnected, MissingSetting, NoSuchProject
from backend.processes import free_port, wait_until
from backend.rounds import queue
from backend.studio import connect
from backend.studio import server as server_module
from backend.studio.client import Studio
from backend.studio.labels import image_config
from backend.studio.publish import publish
from backend.studio.server import Account, LabelStudioServer
from tests.conftest import forget_process_state
from tests.services.label_studio import LABELS, TASK, add_tasks
from tests.studio.test_publish import plan_of
from tests.web.conftest import Web, serving, stored

SECRET = "shared-secret"
LOGIN = ("studio", "pass:word")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """nextbatch's web process, with basic auth and a webhook secret, over a database of its own."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTBATCH_HOME", str(folder))
        patch.delenv("NEXTBATCH_DATABASE_URL", raising=False)
        forget_process_state()
        queue.prepare_database()
        with serving(
            folder,
            NEXTBATCH_USERNAME=LOGIN[0],
            NEXTBATCH_PASSWORD=LOGIN[1],
            NEXTBATCH_WEBHOOK_SECRET=SECRET,
        ) as running:
            yield running
        forget_process_state()


def connect_all(studio: Studio, project_id: int, web: Web) -> tuple[int, int]:
    """The ids of the backend and of the webhook."""
    return (
        connect.ensure_backend(studio, project_id, web.url, "nextbatch test", *LOGIN),
        connect.ensure_webhook(studio, project_id, f"{web.url}/webhook", SECRET),
    )


def state_of(studio: Studio, project_id: int) -> list[Any]:
    """All that connecting touches in Label Studio."""
    backends = studio.get("/api/ml/", {"project": project_id})
    kept = ("id", "url", "title", "state", "basic_auth_user", "auth_method")
    hooks = connect.webhooks(studio, project_id)
    project = studio.get(f"/api/projects/{project_id}/")
    return [
        [{name: backend.get(name) for name in kept} for backend in backends],
        [{name: value for name, value in hook.items() if name != "updated_at"} for hook in hooks],
        [project["model_version"], project["sampling"], project["label_config"]],
    ]


def test_a_project_is_made_once_and_then_found_by_its_title(studio: Studio) -> None:
    title = f"found {uuid.uuid4().hex[:8]}"
    made = connect.ensure_project(studio, title, image_config(LABELS))

    found = connect.ensure_project(studio, title, image_config(LABELS))

    assert (made.created, found.created, found.id) == (True, False, made.id)
    assert found.label_config == made.label_config


def test_a_title_that_is_part_of_another_is_not_that_other(studio: Studio) -> None:
    title = f"part {uuid.uuid4().hex[:8]}"
    longer = connect.ensure_project(studio, f"{title} and more", image_config(LABELS))

    shorter = connect.ensure_project(studio, title, image_config(LABELS))

    assert shorter.id != longer.id


def test_an_unknown_project_an_unusable_config_and_none_are_refused(studio: Studio) -> None:
    title = f"never {uuid.uuid4().hex[:8]}"

    with pytest.raises(NoSuchProject, match="999999"):
        connect.ensure_project(studio, title, None, project_id=999_999)
    with pytest.raises(MissingSetting):
        connect.ensure_project(studio, title, None)
    with pytest.raises(BadLabelConfig):
        connect.ensure_project(studio, title, "<View></View>")


def test_tasks_are_imported_once_and_labels_with_them(studio: Studio, project_id: int) -> None:
    tasks = [connect.TaskToImport(f"key-{n}", {"image": f"{n}.jpg"}, LABELS[0] if n < 2 else None) for n in range(5)]
    first = connect.import_tasks(studio, project_id, tasks[:3], TASK, lambda _line: None)

    second = connect.import_tasks(studio, project_id, tasks, TASK, lambda _line: None)

    project = studio.get(f"/api/projects/{project_id}/")
    assert second.items() >= first.items()
    assert set(second) == {task.key for task in tasks}
    assert (project["task_number"], project["total_annotations_number"]) == (5, 2)


def test_connecting_twice_changes_nothing(studio: Studio, project_id: int, web: Web) -> None:
    first = connect_all(studio, project_id, web)
    before = state_of(studio, project_id)

    second = connect_all(studio, project_id, web)

    assert second == first
    assert state_of(studio, project_id) == before


def test_only_our_webhook_stays_and_other_peoples(studio: Studio, project_id: int, web: Web) -> None:
    theirs = {"project": project_id, "url": "http://127.0.0.1:9/elsewhere", "send_for_all_actions": True}
    studio.post("/api/webhooks/", theirs)

    connect_all(studio, project_id, web)

    hooks = {hook["url"]: hook for hook in connect.webhooks(studio, project_id)}
    assert set(hooks) == {theirs["url"], f"{web.url}/webhook"}
    ours = hooks[f"{web.url}/webhook"]
    assert ours["headers"] == {connect.SECRET_HEADER: SECRET}
    assert set(ours["actions"]) == set(connect.WEBHOOK_ACTIONS)
    assert not ours["send_for_all_actions"]


def test_a_new_secret_replaces_the_old_one(studio: Studio, project_id: int, web: Web) -> None:
    connect_all(studio, project_id, web)

    connect.ensure_webhook(studio, project_id, f"{web.url}/webhook", "another")

    (hook,) = connect.webhooks(studio, project_id)
    assert hook["headers"] == {connect.SECRET_HEADER: "another"}


def test_connecting_leaves_the_order_of_the_queue_alone(studio: Studio, project_id: int, web: Web) -> None:
    ids = add_tasks(studio, project_id, 3)
    publish(studio, project_id, plan_of([2, 0], [ids[2], ids[0]]), TASK)

    connect_all(studio, project_id, web)

    assert studio.get(f"/api/projects/{project_id}/")["model_version"] == "v1+b1"
    assert studio.get(f"/api/projects/{project_id}/next")["id"] == ids[2]


def test_an_annotation_reaches_our_webhook(studio: Studio, project_id: int, web: Web) -> None:
    with transaction() as session:
        name = f"p{project_id}"
        project = Project(
            name=name, config={"name": name}, studio_project_id=project_id, label_config=image_config(LABELS)
        )
        session.add(project)
    connect_all(studio, project_id, web)
    task_id = add_tasks(studio, project_id, 1)[0]

    number = studio.post(f"/api/tasks/{task_id}/annotations/", {"result": TASK.to_result("cat")})["id"]

    assert wait_until(lambda: number in [n for event in stored(project) for n in event.annotation_ids], timeout_s=60)
    assert all(event.action in connect.WEBHOOK_ACTIONS for event in stored(project))


def test_a_backend_that_does_not_answer_is_refused(studio: Studio, project_id: int) -> None:
    with pytest.raises(BackendRefused, match="NEXTBATCH_URL"):
        connect.ensure_backend(studio, project_id, f"http://127.0.0.1:{free_port()}", "nextbatch", None, None)


def test_a_folder_is_shown_once(studio: Studio, server: LabelStudioServer, project_id: int) -> None:
    assert server.local_files is not None
    folder = server.local_files / "cats"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"a picture")

    for _ in range(2):
        connect.ensure_local_files(studio, project_id, folder)

    assert len(studio.get("/api/storages/localfiles", {"project": project_id})) == 1
    address = f"{server.url}/data/local-files/"
    login = {"Authorization": f"Token {server.account.token}"}
    answer = httpx.get(address, params={"d": "cats/1.jpg"}, headers=login, trust_env=False, timeout=30)
    assert answer.content == b"a picture"


@pytest.fixture
def guarded(python_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """A Label Studio that refuses webhooks to private addresses, as it does by default."""
    plain = server_module._environment
    monkeypatch.setattr(
        server_module, "_environment", lambda *given: plain(*given) | {"SSRF_PROTECTION_ENABLED": "true"}
    )
    running = LabelStudioServer(python_env, tmp_path / "data", free_port(), Account.random())
    running.start()
    try:
        running.wait_ready()
        with Studio(running.url, running.account.token) as studio:
            yield studio
    finally:
        running.stop()


def test_a_half_made_connection_is_told_with_its_mend(guarded: Studio, web: Web) -> None:
    """Label Studio refuses the webhook, and yet keeps the backend and asks it for predictions."""
    project_id = connect.ensure_project(guarded, "guarded", image_config(LABELS)).id
    with pytest.raises(BackendRefused, match="SSRF_PROTECTION_ENABLED=false"):
        connect.ensure_backend(guarded, project_id, web.url, "nextbatch test", *LOGIN)

    with pytest.raises(HalfConnected, match="SSRF_PROTECTION_ENABLED=false"):
        connect.ensure_webhook(guarded, project_id, f"{web.url}/webhook", SECRET)

    assert not connect.webhooks(guarded, project_id)

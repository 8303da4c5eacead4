"""The same promises with a running Label Studio on the other side."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from backend.database import Item, Project, transaction
from backend.processes import wait_until
from backend.studio.client import Studio
from backend.studio.labels import image_config
from backend.studio.server import LabelStudioServer
from tests.web.champion import Champion, crown
from tests.web.conftest import Web, rounds, serving, stored

CONFIG = image_config(["cat", "dog"])
USER, PASSWORD = "studio", "a password"


@dataclass(frozen=True)
class Connected:
    """A project that both sides know, with a task for each item of the champion; `backend_id` is the connection."""

    project: Project
    champion: Champion
    studio_id: int
    backend_id: int


@pytest.fixture(scope="module")
def web(sqlite_home: Path) -> Iterator[Web]:
    """The web process with basic auth."""
    with serving(sqlite_home, NEXTBATCH_USERNAME=USER, NEXTBATCH_PASSWORD=PASSWORD) as running:
        yield running


def connect(server: LabelStudioServer, studio_id: int, web: Web, password: str = PASSWORD) -> httpx.Response:
    """What the page does when somebody adds a model."""
    body = {
        "project": studio_id,
        "url": web.url,
        "title": "nextbatch",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass": password,
    }
    headers = {"Authorization": f"Token {server.account.token}"}
    return httpx.post(f"{server.url}/api/ml", json=body, headers=headers, timeout=30)


def new_studio_project(studio: Studio, config: str = CONFIG) -> int:
    return int(studio.post("/api/projects/", {"title": f"web {uuid.uuid4().hex[:8]}", "label_config": config})["id"])


@pytest.fixture
def connected(server: LabelStudioServer, studio: Studio, web: Web) -> Connected:
    studio_id = new_studio_project(studio)
    name = f"s{uuid.uuid4().hex[:8]}"
    with transaction() as session:
        rest = {"new_labels": 1_000, "rest_share": 0}
        project = Project(
            name=name, config={"name": name, "trigger": rest}, studio_project_id=studio_id, label_config=CONFIG
        )
        session.add(project)
    champion = crown(project, items=4)
    body = [{"data": {"image": uri}} for uri in champion.uris]
    made = studio.post(f"/api/projects/{studio_id}/import", body, {"return_task_ids": "true"})
    with transaction() as session:
        for uri, task_id in zip(champion.uris, made["task_ids"], strict=True):
            session.execute(sa.update(Item).where(Item.uri == uri).values(task_id=task_id))
    answer = connect(server, studio_id, web)
    assert answer.status_code == 201, answer.text
    return Connected(project, champion, studio_id, answer.json()["id"])


def tasks_of(studio: Studio, studio_id: int) -> list[dict[str, Any]]:
    answer = studio.get("/api/tasks", {"project": str(studio_id), "fields": "all"})
    return sorted(answer["tasks"], key=lambda task: int(task["id"]))


def test_connecting_shows_the_model_version(studio: Studio, connected: Connected) -> None:
    shown = studio.get(f"/api/ml/{connected.backend_id}")
    versions = studio.get(f"/api/ml/{connected.backend_id}/versions")

    assert (shown["state"], shown["error_message"]) == ("CO", None)
    assert "v1" in versions["versions"]


def test_connecting_a_project_that_does_not_fit_says_which_tag_and_what_to_do(
    server: LabelStudioServer, studio: Studio, web: Web
) -> None:
    control = "<RectangleLabels name='box' toName='i'><Label value='a'/></RectangleLabels>"
    boxes = f"<View><Image name='i' value='$i'/>{control}</View>"

    answer = connect(server, new_studio_project(studio, boxes), web)

    assert answer.status_code == 400
    assert "<RectangleLabels name='box'> asks for something that nextbatch does not learn" in answer.text
    assert "Remove it" in answer.text


def test_connecting_with_a_wrong_password_says_so(server: LabelStudioServer, studio: Studio, web: Web) -> None:
    answer = connect(server, new_studio_project(studio), web, password="wrong")

    assert answer.status_code == 400
    assert "authentication parameters were either not provided or are incorrect" in answer.text


def test_retrieved_predictions_are_the_models(studio: Studio, connected: Connected) -> None:
    action = {"id": "retrieve_tasks_predictions", "project": str(connected.studio_id)}
    studio.post("/api/dm/actions/", {"selectedItems": {"all": True, "excluded": []}}, action)

    tasks = tasks_of(studio, connected.studio_id)

    for place, task in enumerate(tasks):
        label, probability = connected.champion.expected(place)
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "v1"
        assert prediction["result"][0]["value"]["choices"] == [label]
        assert prediction["score"] == pytest.approx(probability, abs=2e-3)


def test_start_training_asks_for_a_round(studio: Studio, connected: Connected) -> None:
    studio.post(f"/api/ml/{connected.backend_id}/train", {})

    assert wait_until(lambda: len(rounds(connected.project)) == 2, timeout_s=60)
    assert [round_.trigger for round_ in rounds(connected.project)][-1] == "start_training"


def test_what_people_do_arrives_as_events(studio: Studio, connected: Connected, web: Web) -> None:
    hook = {
        "project": connected.studio_id,
        "url": f"{web.url}/webhook",
        "send_payload": True,
        "send_for_all_actions": True,
        "headers": {"Authorization": httpx.BasicAuth(USER, PASSWORD)._auth_header},
    }
    studio.post("/api/webhooks/", hook)
    task_id = tasks_of(studio, connected.studio_id)[0]["id"]
    choice = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}

    made = studio.post(f"/api/tasks/{task_id}/annotations/", {"result": [choice], "lead_time": 1.0})
    studio.patch(f"/api/annotations/{made['id']}/", {"result": [choice], "lead_time": 2.0})
    studio.delete(f"/api/annotations/{made['id']}/")
    studio.post(f"/api/projects/{connected.studio_id}/import", [{"data": {"image": "https://example.org/new.jpg"}}])

    expected = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_CREATED"]
    assert wait_until(lambda: set(expected) <= {event.action for event in stored(connected.project)}, timeout_s=60)
    events = {event.action: event for event in stored(connected.project)}
    assert events["ANNOTATION_CREATED"].task_ids == [task_id]
    assert events["ANNOTATION_CREATED"].annotation_ids == [made["id"]]
    assert events["ANNOTATIONS_DELETED"].annotation_ids == [made["id"]]

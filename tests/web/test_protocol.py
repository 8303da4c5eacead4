"""The rest of Label Studio's protocol: health, setup, versions, and how a refusal reaches people."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.database import Project
from tests.web.champion import crown
from tests.web.conftest import IMAGE_CONFIG, Web, serving


@pytest.fixture(scope="module")
def web(sqlite_home: Path) -> Iterator[Web]:
    """The web process; the database makes no difference here."""
    with serving(sqlite_home) as running:
        yield running


def setup(web: Web, project: object, schema: str | None = IMAGE_CONFIG) -> httpx.Response:
    body = {
        "project": project,
        "schema": schema,
        "hostname": "http://attacker.invalid:1",
        "access_token": "leaked-access-token",
        "extra_params": None,
    }
    return web.client.post("/setup", json=body)


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_says_up(web: Web, path: str) -> None:
    answer = web.client.get(path)

    assert answer.status_code == 200
    assert answer.json()["status"] == "UP"


def test_setup_names_the_model_before_and_after_the_first(web: Web, project: Project) -> None:
    studio_id = f"{project.studio_project_id}.1795224187"

    before = setup(web, studio_id).json()
    crown(project, number=7)
    after = setup(web, studio_id).json()

    assert (before, after) == ({"model_version": "v0"}, {"model_version": "v7"})


def test_setup_of_a_project_that_is_yet_unknown_succeeds(web: Web) -> None:
    assert setup(web, "777777.1").json() == {"model_version": "v0"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("<View><Image name='i' value='$i'/><RectangleLabels name='box' toName='i'/></View>", "<RectangleLabels"),
        ("<View>", "no XML"),
        (IMAGE_CONFIG.replace('choice="single"', 'choice="several"'), 'Set choice="single"'),
        (IMAGE_CONFIG.replace('"$image"', '"ü\r\nSet-Cookie: a=b"'), "no field of the task's data"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named_in_the_status_line(web: Web, schema: str, words: str) -> None:
    answer = setup(web, "1.2", schema)

    assert answer.status_code == 400
    assert words in answer.text
    assert words in answer.reason_phrase  # all that Label Studio shows of a refusal
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("project", [None, "", "x", {"id": 1}, -1])
def test_setup_without_a_project_is_refused(web: Web, project: object) -> None:
    assert setup(web, project).status_code == 400


def test_the_access_token_is_not_logged(web: Web, project: Project) -> None:
    setup(web, f"{project.studio_project_id}.1")
    setup(web, None)

    assert "leaked" not in web.log.read_text()
    assert "attacker" not in web.log.read_text()


def test_versions_are_listed_newest_first(web: Web, project: Project) -> None:
    crown(project, number=1)
    crown(project, number=2)

    mine = web.client.get("/versions", params={"project": f"{project.studio_project_id}.1"})
    anybodys = web.client.get("/versions")

    assert mine.json() == {"versions": ["v2", "v1"]}
    assert {"v1", "v2"} <= set(anybodys.json()["versions"])


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/setup", 405), ("PUT", "/", 405)]
)
def test_what_is_not_there_is_said_in_plain_text(web: Web, method: str, path: str, status: int) -> None:
    answer = web.client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_body_that_is_too_large_is_refused_unread(web: Web) -> None:
    connection = http.client.HTTPConnection(web.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(2**30))
    connection.endheaders(b"{")

    answer = connection.getresponse()
    connection.close()

    assert answer.status == 413


def test_metrics_count_what_was_answered(web: Web, project: Project) -> None:
    champion = crown(project)
    name = 'nextbatch_predictions_total{outcome="stored"}'
    before = web.metric(name)
    tasks = [{"id": id_, "data": {"image": uri}} for id_, uri in zip(champion.task_ids, champion.uris, strict=True)]

    web.client.post(
        "/predict",
        content=json.dumps({"tasks": tasks, "project": f"{project.studio_project_id}.1", "label_config": IMAGE_CONFIG}),
    )

    assert web.metric(name) == before + 8
    lines = [line for line in web.client.get("/metrics").text.splitlines() if not line.startswith("#")]
    assert all(line.startswith("nextbatch_") for line in lines)

"""A project's settings on a page: checked before they are stored, every version kept, and no secret shown."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from backend import configuration
from backend.database import Deed, Project, ProjectSettings, reading
from backend.rounds.queue import prepare_database
from backend.settings import ProjectConfig, settings
from backend.web import sessions
from backend.web.app import create_app
from tests.web.conftest import make_project
from tests.web.test_dashboard import Document
from tests.web.test_deeds import send

SECRETS = {
    "NEXTBATCH_WEBHOOK_SECRET": "shh-webhook",
    "LABEL_STUDIO_API_KEY": "shh-studio",
    "NEXTBATCH_SECRET_KEY": "shh-key",
}


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    sessions.signing_key.cache_clear()
    prepare_database()
    return create_app().test_client()


def changed(project: Project, **batch: object) -> str:
    config = ProjectConfig.model_validate({"name": project.name, "batch": batch})
    return configuration.dump(config)


def stored(project: Project) -> tuple[int, int]:
    with reading() as session:
        found = session.get_one(Project, project.id)
        return found.config_version, found.settings.batch.size


def test_a_change_is_shown_first_and_stored_as_a_version_after(client: FlaskClient) -> None:
    project = make_project()
    path, text = f"/projects/{project.name}/settings", changed(project, size=77)

    shown = send(client, path, yaml=text, version=1, deed="check")
    before = stored(project)
    kept = send(client, path, yaml=text.replace("\n", "\r\n"), version=1, deed="store")

    assert "+  size: 77" in Document(shown.text).text
    assert before == (1, 50)
    assert kept.status_code == 303
    assert stored(project) == (2, 77)
    with reading() as session:
        versions = session.scalars(sa.select(ProjectSettings).where(ProjectSettings.project_id == project.id)).all()
        books = session.scalars(sa.select(Deed)).all()
    assert [(one.version, one.config["batch"]["size"]) for one in versions] == [(2, 77)]
    assert [(one.action, one.detail) for one in books] == [("settings", "version 2")]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("size: 77", "size: 0", "greater than or equal to 1"),
        ("size: 77", "sise: 77", "sise"),
        ("name: ", "name: other-", "keeps its name"),
        ("batch:", "batch: [", "no YAML"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(client: FlaskClient, old: str, new: str, says: str) -> None:
    project = make_project()
    text = changed(project, size=77).replace(old, new, 1)

    answer = send(client, f"/projects/{project.name}/settings", yaml=text, version=1, deed="store")

    assert answer.status_code == 400
    assert says in Document(answer.text).text
    assert stored(project) == (1, 50)


def test_nobody_overwrites_what_somebody_else_stored_meanwhile(client: FlaskClient) -> None:
    project = make_project()
    path = f"/projects/{project.name}/settings"
    send(client, path, yaml=changed(project, size=77), version=1, deed="store")

    late = send(client, path, yaml=changed(project, size=99), version=1, deed="store")

    assert late.status_code == 400
    assert stored(project) == (2, 77)


def test_no_secret_is_on_the_page(client: FlaskClient) -> None:
    project = make_project()

    page = client.get(f"/projects/{project.name}/settings").text

    assert "batch:" in page
    assert not any(secret in page for secret in SECRETS.values())

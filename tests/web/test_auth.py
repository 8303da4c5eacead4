"""Who may call: open without credentials, closed with them, and no endpoint is forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.database import Project
from tests.web.conftest import Web, make_project, serving, stored, studio_project

USER, PASSWORD, SECRET = "studio", "pässword:with colon", "shared-sécret"
PROTECTED = [("GET", "/versions"), ("GET", "/metrics"), ("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook")]


@pytest.fixture(scope="module")
def guarded(sqlite_home: Path) -> Iterator[Web]:
    """Basic auth and a webhook secret."""
    with serving(
        sqlite_home, NEXTBATCH_USERNAME=USER, NEXTBATCH_PASSWORD=PASSWORD, NEXTBATCH_WEBHOOK_SECRET=SECRET
    ) as running:
        yield running


@pytest.fixture(scope="module")
def with_secret(sqlite_home: Path) -> Iterator[Web]:
    """A webhook secret alone."""
    with serving(sqlite_home, NEXTBATCH_WEBHOOK_SECRET=SECRET) as running:
        yield running


def demand(project: Project) -> dict[str, object]:
    return {"action": "START_TRAINING", "project": studio_project(project)}


def secret(value: str) -> dict[bytes, bytes]:
    return {b"X-Nextbatch-Secret": value.encode()}


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "credentials",
    [None, (USER, "wrong"), ("wrong", PASSWORD), ("", ""), (USER, PASSWORD[:-1]), (USER, "\N{PILE OF POO}")],
)
def test_wrong_credentials_are_refused(
    guarded: Web, method: str, path: str, credentials: tuple[str, str] | None
) -> None:
    answer = guarded.client.request(method, path, json={"project": "1.2", "tasks": []}, auth=credentials)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer abc", "Digest x=y", "Basic " + "A" * 4000])
def test_garbled_credentials_are_refused(guarded: Web, header: str) -> None:
    answer = guarded.client.get("/versions", headers={"Authorization": header})

    assert answer.status_code == 401


@pytest.mark.parametrize(("method", "path"), PROTECTED[:-1])
def test_right_credentials_open(guarded: Web, method: str, path: str) -> None:
    body = {"project": "1.2", "tasks": [], "schema": ""} if method == "POST" else None

    answer = guarded.client.request(method, path, json=body, auth=(USER, PASSWORD))

    assert answer.status_code == 200, answer.text


def test_health_is_open_to_probes_and_tells_wrong_credentials(guarded: Web) -> None:
    assert guarded.client.get("/health").status_code == 200
    assert guarded.client.get("/health", auth=(USER, PASSWORD)).status_code == 200
    assert guarded.client.get("/health", auth=(USER, "wrong")).status_code == 401


def test_a_webhook_enters_by_secret_or_by_credentials(guarded: Web) -> None:
    project = make_project()

    by_secret = guarded.client.post("/webhook", json=demand(project), headers=secret(SECRET))
    by_credentials = guarded.client.post("/webhook", json=demand(project), auth=(USER, PASSWORD))

    assert (by_secret.status_code, by_credentials.status_code) == (200, 200)
    assert len(stored(project)) == 2


@pytest.mark.parametrize("value", [None, "", "wrong", SECRET + "x", SECRET[:-1]])
def test_a_webhook_without_the_secret_changes_nothing(with_secret: Web, value: str | None) -> None:
    project = make_project()

    answer = with_secret.client.post("/webhook", json=demand(project), headers=None if value is None else secret(value))

    assert answer.status_code == 401
    assert stored(project) == []


def test_a_secret_alone_leaves_the_other_endpoints_open(with_secret: Web) -> None:
    project = make_project()

    answer = with_secret.client.post("/webhook", json=demand(project), headers=secret(SECRET))

    assert answer.status_code == 200
    assert with_secret.client.get("/versions").status_code == 200


def test_secrets_are_not_logged(guarded: Web) -> None:
    guarded.client.get("/versions", auth=(USER, "wrong-but-secret"))
    guarded.client.post("/webhook", content=b"{", headers=secret(SECRET))

    log = guarded.log.read_text()

    assert not any(word in log for word in (PASSWORD, SECRET, "wrong-but-secret"))

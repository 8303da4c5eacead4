"""Faults planted in a live set-up: doctor names each, and mends those that are safe to mend."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from backend.doctor import Finding, examine
from backend.processes import free_port, stop, wait_until
from backend.studio import connect
from backend.studio.client import Studio
from tests.conftest import forget_process_state
from tests.rounds.conftest import Loop

SECRET = "correct-horse"


@pytest.fixture
def live(loop: Loop, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """The loop with web and worker running, connected, and its first batch published."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("NEXTBATCH_URL", url)
    monkeypatch.setenv("NEXTBATCH_WEBHOOK_SECRET", SECRET)
    forget_process_state()
    web = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "web", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        assert wait_until(lambda: answers(url), 30)
        connect.ensure_backend(studio, loop.studio_project_id, url, connect.backend_title("digits"), None, None)
        connect.ensure_webhook(studio, loop.studio_project_id, f"{url}/webhook", SECRET)
        loop.work()
        loop.wait_done(loop.ask())
        yield loop
    finally:
        stop(web)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def faults(fix: bool = False) -> list[str]:
    return [one.check.split(": ")[-1] for one in examine(fix=fix) if one.is_fault]


def project_path(loop: Loop) -> str:
    return f"/api/projects/{loop.studio_project_id}/"


def delete_webhooks(loop: Loop, studio: Studio) -> None:
    for hook in connect.webhooks(studio, loop.studio_project_id):
        studio.delete(f"/api/webhooks/{hook['id']}/")


def add_bare_webhook(loop: Loop, studio: Studio) -> None:
    (ours,) = connect.webhooks(studio, loop.studio_project_id)
    studio.post("/api/webhooks/", {"project": loop.studio_project_id, "url": ours["url"], "send_for_all_actions": True})


def delete_backend(loop: Loop, studio: Studio) -> None:
    for one in studio.get("/api/ml/", {"project": loop.studio_project_id}):
        studio.delete(f"/api/ml/{one['id']}")


PLANTS: dict[str, tuple[Callable[[Loop, Studio], object], str]] = {
    "sampling": (
        lambda loop, studio: studio.patch(project_path(loop), {"sampling": "Uniform sampling"}),
        "sampling",
    ),
    "model version": (
        lambda loop, studio: studio.patch(project_path(loop), {"model_version": ""}),
        "model version",
    ),
    "webhook deleted": (delete_webhooks, "webhook"),
    "webhook without a secret": (add_bare_webhook, "automatic webhooks"),
    "backend deleted": (delete_backend, "backend"),
}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_every_planted_fault_is_named_mended_and_then_gone(live: Loop, studio: Studio) -> None:
    healthy = faults()
    named: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for name, (plant, _) in PLANTS.items():
        plant(live, studio)
        named[name] = faults()
        examine(fix=True)
        left[name] = faults()

    assert healthy == []
    assert named == {name: [expected] for name, (_, expected) in PLANTS.items()}
    assert left == {name: [] for name in PLANTS}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_what_only_a_person_can_mend_says_how(live: Loop, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.patch(
        project_path(live),
        {"label_config": studio.get(project_path(live))["label_config"].replace('value="9"', 'value="nine"')},
    )
    changed = {one.check.split(": ")[-1]: one for one in examine() if one.is_fault}
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    forget_process_state()
    refused = [one for one in examine() if one.is_fault]

    assert set(changed) == {"project"}
    assert "nextbatch seed" in changed["project"].mend
    assert [one.check for one in refused] == ["Label Studio"]
    assert "0" * 40 not in str(refused[0])


def test_a_finding_tells_what_why_and_how() -> None:
    text = str(Finding("web", True, "it does not answer", "nothing works", "Run: nextbatch serve"))

    assert [part in text for part in ("FAULT", "it does not answer", "nothing works", "nextbatch serve")] == [True] * 4

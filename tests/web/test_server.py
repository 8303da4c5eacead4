"""The process itself: light, quick beside a busy database, and gone when told to."""

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.database import Project
from backend.processes import wait_until
from benchmarks.webhook import Storm, measure
from tests.web import bodies
from tests.web.champion import crown
from tests.web.conftest import IMAGE_CONFIG, Web, make_project, rounds, serving, stored, studio_project

HEAVY = {
    "torch",
    "torchvision",
    "sklearn",
    "openvino",
    "label_studio_sdk",
    "onnx",
    "pandas",
    "matplotlib",
    "tritonclient",
}

TELLING = """
import sys
from backend.web.server import Server

class Telling(Server):
    def load(self):
        app = super().load()
        app.add_url_rule("/modules", view_func=lambda: sorted({name.partition(".")[0] for name in sys.modules}))
        return app

def run(host, port):
    Telling(host, port).run()
"""

TROUBLED = """
import os
import time
from pathlib import Path
from backend.hooks import Hooks
from backend.web import server

class Troubled(Hooks):
    def setup(self):
        raise ZeroDivisionError("private detail")
    def predict(self, tasks, context=None, **kwargs):
        while not Path(os.environ["RELEASED"]).exists():
            time.sleep(0.02)
        return super().predict(tasks, context)[:1]

def run(host, port):
    server.run(host, port, Troubled)
"""


@pytest.fixture(scope="module")
def troubled(sqlite_home: Path) -> Iterator[Web]:
    """Hooks of a user's that fail, and return too little."""
    with serving(sqlite_home, TROUBLED, RELEASED="/") as running:
        yield running


def test_nothing_heavy_is_imported_by_any_endpoint(sqlite_home: Path) -> None:
    project = make_project()
    champion = crown(project)
    tasks = [{"id": champion.task_ids[0], "data": {"image": champion.uris[0]}}, {"id": 5, "data": {"image": "x"}}]
    studio_id = f"{project.studio_project_id}.1"
    with serving(sqlite_home, TELLING) as web:
        setup = web.client.post("/setup", json={"project": studio_id, "schema": IMAGE_CONFIG})
        predicted = web.client.post(
            "/predict", json={"project": studio_id, "label_config": IMAGE_CONFIG, "tasks": tasks}
        )
        told = [
            web.client.post("/webhook", json=body) for body, *_ in bodies.every_kind(studio_project(project)).values()
        ]
        asked = [web.client.get(path) for path in ("/", "/health", "/versions", "/metrics")]

        loaded = set(web.client.get("/modules").json())

    assert all(answer.status_code == 200 for answer in (setup, predicted, *told, *asked))
    assert predicted.json()["results"][0]["result"]
    assert loaded & HEAVY == set()


def test_a_failure_inside_shows_neither_traceback_nor_text(troubled: Web) -> None:
    answer = troubled.client.post("/setup", json={"project": "1.2", "schema": IMAGE_CONFIG})

    assert answer.status_code == 500
    assert "private detail" not in answer.text + troubled.log.read_text()
    assert "Traceback" not in answer.text
    assert "ZeroDivisionError" in troubled.log.read_text()


def test_too_short_an_answer_of_users_hooks_is_padded(troubled: Web) -> None:
    tasks = [{"id": 1, "data": {}}] * 3

    answer = troubled.client.post("/predict", json={"project": "1.2", "tasks": tasks})

    assert len(answer.json()["results"]) == 3


def test_it_ends_on_sigterm_after_the_requests_in_flight(sqlite_home: Path, tmp_path: Path) -> None:
    released = tmp_path / "released"
    with serving(sqlite_home, TROUBLED, RELEASED=str(released)) as web:
        answers: list[httpx.Response] = []
        body = {"project": "1.2", "tasks": [{"id": 1}]}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{web.url}/predict", json=body, timeout=60))
        )
        asking.start()
        in_flight = 'nextbatch_requests_in_flight{endpoint="mlbackend.predict"}'
        assert wait_until(lambda: web.metric(in_flight) == 1, timeout_s=30, poll_s=0.02)

        web.process.send_signal(signal.SIGTERM)
        threading.Timer(1, released.touch).start()  # of the 10 s that it has
        status = web.process.wait(60)
        asking.join(60)

    assert status == 0
    assert [answer.status_code for answer in answers] == [200]


def test_nothing_is_left_when_it_is_killed(sqlite_home: Path) -> None:
    with serving(sqlite_home) as web:
        os.kill(web.process.pid, signal.SIGKILL)
        web.process.wait(60)

        assert wait_until(lambda: not _listens(web.url), timeout_s=60)


def _listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def test_a_held_database_is_refused_before_label_studio_gives_up(sqlite_home: Path) -> None:
    project = make_project()
    body, *_ = bodies.every_kind(studio_project(project))["created"]
    with serving(sqlite_home) as web:
        web.client.post("/webhook", json=body)
        refused, seconds = [], []
        holder = sqlite3.connect(sqlite_home / "nextbatch.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            started = time.monotonic()
            refused.append(web.client.post("/webhook", json=body).status_code)
            seconds.append(time.monotonic() - started)
        health = web.client.get("/health")
        setup = web.client.post("/setup", json={"project": f"{project.studio_project_id}.1", "schema": IMAGE_CONFIG})
        holder.execute("ROLLBACK")
        accepted = web.client.post("/webhook", json=body)

    assert (refused, accepted.status_code) == ([503] * 3, 200)
    assert min(seconds) < 0.95  # Label Studio waits 1 s; a busy machine adds to one of them, not to all
    assert (health.status_code, setup.status_code) == (200, 200)
    assert len(stored(project)) == 2


def test_events_in_a_storm_are_all_stored_and_answered_quickly(web: Web) -> None:
    project: Project = make_project(trigger={"new_labels": 100_000})
    body, *_ = bodies.every_kind(studio_project(project))["created"]

    def is_quick(storm: Storm) -> bool:
        """On idle cores the 99th percentiles are far below (see the benchmark); these bounds hold on busy ones."""
        return storm.p99("webhook") < 0.5 and storm.p99("health") < 0.3 and storm.p99("setup") < 0.3

    storms: list[Storm] = []
    while len(storms) < 3 and not any(map(is_quick, storms)):  # one may meet something else that holds the cores
        storms.append(measure(web.url, body, f"{project.studio_project_id}.1", IMAGE_CONFIG, rate=50, seconds=4))

    assert [(storm.sent, storm.refused) for storm in storms] == [(200, 0)] * len(storms)
    assert len(stored(project)) == 200 * len(storms)
    assert len(rounds(project)) == 1
    assert is_quick(storms[-1]), [{name: storm.p99(name) for name in storm.seconds} for storm in storms]

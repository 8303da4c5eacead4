"""The web process as it runs: gunicorn in a process of its own, on a loopback port, over a real database."""

import itertools
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from backend.connections import certificates
from backend.database import Event, Project, Round, reading, transaction
from backend.processes import free_port, spawn, stop, wait_until
from backend.rounds import queue
from tests.conftest import forget_process_state
from tests.services import postgres

IMAGE_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="choice" toName="image" choice="single"><Choice value="cat"/><Choice value="dog"/></Choices>
</View>"""
_studio_ids = itertools.count(1)
_VARIABLES = ("DATABASE_URL", "USERNAME", "PASSWORD", "WEBHOOK_SECRET", "PREDICT_DEADLINE_S")


@dataclass(frozen=True)
class Web:
    """A running web process; `client` talks to it, `log` is what it wrote."""

    url: str
    client: httpx.Client
    process: "subprocess.Popen[bytes]"
    log: Path

    def metric(self, name: str) -> float:
        """The value of one line of /metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextmanager
def serving(folder: Path, program: str = "from backend.web.server import run", **settings: str) -> Iterator[Web]:
    """Start the web process with this process's environment and `settings`; `program` must define `run(host, port)`."""
    port = free_port()
    log = folder / f"web-{port}.log"
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"} | settings
    process = spawn([sys.executable, "-c", f"{program}\nrun('127.0.0.1', {port})"], log, environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=certificates()) as client:
            assert wait_until(lambda: _answers(client), timeout_s=120), log.read_text()
            yield Web(f"http://127.0.0.1:{port}", client, process, log)
    finally:
        stop(process)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code in (200, 401)
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a migrated database of its own, for a module's tests; on SQLite and on Postgres."""
    with _home(request, tmp_path_factory, request.param) as folder:
        yield folder


@pytest.fixture(scope="module")
def sqlite_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same on SQLite alone, where the database makes no difference."""
    with _home(request, tmp_path_factory, "sqlite") as folder:
        yield folder


@contextmanager
def _home(request: pytest.FixtureRequest, folders: pytest.TempPathFactory, kind: str) -> Iterator[Path]:
    folder = folders.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in _VARIABLES:
            patch.delenv(f"NEXTBATCH_{name}", raising=False)
        patch.setenv("NEXTBATCH_HOME", str(folder))
        forget_process_state()
        if kind == "sqlite":
            queue.prepare_database()
            yield folder
        else:
            server = request.getfixturevalue("postgres_url")
            with postgres.database(server, f"w{uuid.uuid4().hex[:12]}") as url:
                patch.setenv("NEXTBATCH_DATABASE_URL", url)
                forget_process_state()
                queue.prepare_database()
                yield folder
                forget_process_state()
        forget_process_state()


@pytest.fixture(scope="module")
def web(database: Path) -> Iterator[Web]:
    """The web process on both databases, without credentials."""
    with serving(database) as running:
        yield running


@pytest.fixture
def project() -> Project:
    """A project that Label Studio knows under an id of its own."""
    return make_project()


def make_project(**config: Any) -> Project:
    """A new project in the database of this module."""
    studio_id = next(_studio_ids)
    name = f"p{studio_id}-{uuid.uuid4().hex[:8]}"
    with transaction() as session:
        project = Project(
            name=name, config={"name": name, **config}, studio_project_id=studio_id, label_config=IMAGE_CONFIG
        )
        session.add(project)
    return project


def stored(project: Project) -> list[Event]:
    """The project's events, in the order in which they came."""
    with reading() as session:
        return list(session.scalars(sa.select(Event).where(Event.project_id == project.id).order_by(Event.id)))


def rounds(project: Project) -> list[Round]:
    with reading() as session:
        return list(session.scalars(sa.select(Round).where(Round.project_id == project.id).order_by(Round.number)))


def studio_project(project: Project) -> dict[str, Any]:
    """The `project` of a webhook, with what Label Studio leaks in it."""
    return {
        "id": project.studio_project_id,
        "title": project.name,
        "label_config": IMAGE_CONFIG,
        "token": "leaked-project-token",
        "task_data_login": "leaked-login",
        "task_data_password": "leaked-password",
    }

"""Fixtures that every room's tests share: a home of one's own, and a database on SQLite and on Postgres."""

import ctypes
import os
import uuid
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import hypothesis
import pytest
import structlog

from backend import database, logs
from backend.learning import usage
from backend.rounds import encoding, queue
from backend.settings import settings
from tests.services import postgres

LONGEST = (
    "strategies/test_contract.py", "web/test_browser.py", "rounds/test_recovery.py", "test_demo.py",
    "rounds/test_jobs.py", "test_labelling_page.py", "test_seed.py", "rounds/test_round.py", "test_doctor.py",
    "scoring/test_servers.py", "test_backtest.py", "rounds/test_changeover.py", "rounds/test_garbage.py",
    "rounds/test_texts.py", "web/test_server.py",
)  # fmt: skip
"""Begun first, so that no process of the suite is left alone with one of them at the end; and what takes much memory
before there is a Label Studio and a Triton beside it."""

# The same examples in every run: one by chance would fail a run that is about something else. Who looks for new ones
# gives --hypothesis-profile=default. How long an example takes says only how busy the machine is.
hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")

pytest_plugins = [f"tests.services.{name}" for name in ("browser", "label_studio", "seaweed", "triton")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    items.sort(key=lambda item: next((n for n, name in enumerate(LONGEST) if item.path == root / name), len(LONGEST)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Memory that a file's tests have freed or keep for the next, or the process they fork from, is given back."""
    if nextitem is None or nextitem.path != item.path:
        encoding.open_encoder.cache_clear()
        ctypes.CDLL(None).malloc_trim(0)
        forkserver._forkserver._stop()  # as multiprocessing's own tests end it


def forget_process_state() -> None:
    """Settings, engine, client and where lines go are set once a process; a test with a home of its own starts anew."""
    if database.engine.cache_info().currsize:
        database.engine().dispose()
    for cached in (settings, database.engine, queue.client, encoding.embeddings_of):
        cached.cache_clear()
    usage._waiting.clear()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty NEXTBATCH_HOME, for this process and for those it starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("NEXTBATCH_HOME", str(folder))
    for name in ("NEXTBATCH_DATABASE_URL", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)
    forget_process_state()
    yield folder
    forget_process_state()
    logs.take_lines()


@pytest.fixture
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same embeddings on every machine: with AMX `precision: auto` is bf16."""
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real Postgres server. Missing, it fails in CI and skips elsewhere."""
    if postgres.find() is None and not os.environ.get("CI"):
        pytest.skip("Postgres is missing: run python -m tests.services")
    with postgres.running() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A migrated, empty database, once on SQLite and once on Postgres; its kind."""
    if request.param == "sqlite":
        queue.prepare_database()
        yield "sqlite"
        return
    server = request.getfixturevalue("postgres_url")
    with postgres.database(server, f"t{uuid.uuid4().hex[:12]}") as url:
        monkeypatch.setenv("NEXTBATCH_DATABASE_URL", url)
        forget_process_state()
        queue.prepare_database()
        yield "postgres"
        forget_process_state()

"""Whether what is needed is there: each thing with a reason, within its time, and without a word about addresses."""

import datetime as dt
import re
import threading

import pytest
from flask import Flask

from backend.database import Worker, now, transaction
from backend.processes import free_port, wait_until
from backend.web import readiness
from backend.web.app import create_app
from backend.web.readiness import Check, Readiness
from tests.conftest import forget_process_state


@pytest.fixture
def app(store: str, monkeypatch: pytest.MonkeyPatch) -> Flask:
    assert store
    monkeypatch.setattr(readiness, "_readiness", Readiness())
    return create_app()


def beat(seconds_ago: float = 0.0) -> None:
    with transaction() as session:
        session.merge(Worker(executor_id="w", host="h", pid=1, seen_at=now() - dt.timedelta(seconds=seconds_ago)))


def test_it_is_ready_while_all_that_is_used_answers(app: Flask) -> None:
    beat()

    answer = app.test_client().get("/ready")

    assert answer.status_code == 200
    assert answer.json is not None
    assert {name: one["is_ready"] for name, one in answer.json["checks"].items()} == {
        "database": True, "worker": True, "triton": True, "label_studio": True,
    }  # fmt: skip


def test_without_a_worker_it_is_not_and_says_so(app: Flask) -> None:
    beat(seconds_ago=60)

    answer = app.test_client().get("/ready")

    assert answer.status_code == 503
    assert answer.json is not None
    assert re.search(r" [67]\d s old", answer.json["checks"]["worker"]["reason"])
    assert app.test_client().get("/health").status_code == 200


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_services_that_are_away_are_named_without_their_addresses(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    beat()
    port = free_port()
    monkeypatch.setenv("LABEL_STUDIO_URL", f"http://user:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-api-key")
    monkeypatch.setenv("TRITON_URL", f"127.0.0.1:{port}")
    forget_process_state()

    answer = app.test_client().get("/ready")

    assert answer.status_code == 503
    assert answer.json is not None
    unready = {name for name, one in answer.json["checks"].items() if not one["is_ready"]}
    assert unready == {"triton", "label_studio"}
    assert not any(word in answer.text for word in (str(port), "hunter2", "studio-api-key"))


def test_a_check_that_hangs_is_not_waited_for_nor_begun_again() -> None:
    freed, begun = threading.Event(), []

    def hangs() -> Check:
        begun.append(1)
        freed.wait(30)
        return Check(True, "there")

    looking = Readiness({"slow": hangs, "quick": lambda: Check(True, "there")})
    first, second = looking._ask(), looking._ask()
    freed.set()

    assert [first["slow"].is_ready, second["slow"].is_ready] == [False, False]
    assert first["quick"].is_ready
    assert len(begun) == 1


def test_a_page_does_not_wait_for_a_check_that_hangs_and_knows_soon_after() -> None:
    freed = threading.Event()
    looking = Readiness({"slow": lambda: Check(freed.wait(30), "there")})

    first = looking.last()
    freed.set()

    assert first == {}
    assert wait_until(lambda: looking.last() == {"slow": Check(True, "there")}, 60)

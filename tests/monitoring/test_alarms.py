"""Alerts reach a webhook: signed, once each as far as it answers, again where it does not, and never by a redirect."""

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa

from backend.database import Alert, now, reading, transaction
from backend.processes import wait_until
from backend.rounds import alarms
from backend.settings import settings
from tests.monitoring.conftest import Played

SECRET = "s3cret"


@dataclass
class Hook:
    """A web server that notes what it is told, and answers with `status`."""

    status: int = 200
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def hook(played: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    seen = Hook()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.told.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(seen.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("NEXTBATCH_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
    monkeypatch.setenv("NEXTBATCH_ALERT_SECRET", SECRET)
    settings.cache_clear()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


def raise_one(played: Played) -> int:
    with transaction() as session:
        alert = alarms.write(
            session, played.project_id, "warn", "x_drifted", "X changed.", evidence="p 0.01", mend="Look."
        )
        session.flush()
        return alert.id


def later(**gap: float) -> None:
    """As if that time had passed since alerts became due."""
    with transaction() as session:
        for alert in session.scalars(sa.select(Alert)):
            alert.due_at -= dt.timedelta(**gap)


def test_an_alert_is_told_once_with_a_signature_that_fits(played: Played, hook: Hook) -> None:
    alert_id = raise_one(played)

    taken = [alarms.deliver(), alarms.deliver()]

    (headers, body), *more = hook.told
    at = headers["X-Nextbatch-Signature"].split(",")[0].removeprefix("t=")
    signed = hmac.new(SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert taken == [1, 0]
    assert more == []
    assert headers["X-Nextbatch-Signature"] == f"t={at},v1={signed}"
    assert headers["Idempotency-Key"] == f"nextbatch-alert-{alert_id}"
    told = json.loads(body)
    assert {key: told[key] for key in ("id", "project", "code", "evidence", "mend", "round")} == {
        "id": alert_id, "project": "p", "code": "x_drifted", "evidence": "p 0.01", "mend": "Look.", "round": None
    }  # fmt: skip


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_is_not_taken_is_told_again_after_a_while(played: Played, hook: Hook, status: int) -> None:
    raise_one(played)
    hook.status = status

    at_first = [alarms.deliver(), alarms.deliver()]
    later(seconds=11)
    hook.status = 200
    afterwards = alarms.deliver()

    keys = {headers["Idempotency-Key"] for headers, _ in hook.told}
    assert (at_first, afterwards) == ([0, 0], 1)
    assert len(hook.told) == 2
    assert len(keys) == 1


def test_waits_double_up_to_an_hour_and_end_after_a_day(played: Played, hook: Hook) -> None:
    alert_id = raise_one(played)
    hook.status = 503
    waits = []
    for _ in range(10):
        later(hours=2)
        alarms.deliver()
        with reading() as session:
            due = session.get_one(Alert, alert_id).due_at
        assert due is not None
        waits.append(round((due - now()).total_seconds()))
    with transaction() as session:
        session.execute(sa.update(Alert).values(created_at=now() - dt.timedelta(hours=25)))
    later(hours=2)

    alarms.deliver()

    assert waits == pytest.approx([10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600], abs=2)
    assert len(hook.told) == 10


def test_a_worker_that_died_in_between_lets_its_alert_go(played: Played, hook: Hook) -> None:
    alert_id = raise_one(played)
    alarms._claim(alert_id)

    meanwhile = alarms.deliver()
    later(seconds=61)

    assert (meanwhile, alarms.deliver()) == (0, 1)


def test_without_an_address_or_a_server_nothing_breaks(
    played: Played, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_one(played)
    monkeypatch.delenv("NEXTBATCH_ALERT_URL")
    settings.cache_clear()
    silent = alarms.deliver()
    monkeypatch.setenv("NEXTBATCH_ALERT_URL", "http://127.0.0.1:9/hook")
    settings.cache_clear()

    assert (silent, alarms.deliver()) == (0, 0)
    assert hook.told == []


def test_a_webhook_that_talks_on_and_on_has_been_told(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # it was hung up on
                while not enough.wait(0.05):
                    self.wfile.write(b".")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("NEXTBATCH_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
    monkeypatch.setenv("NEXTBATCH_ALERT_SECRET", SECRET)
    settings.cache_clear()
    raise_one(played)

    with ThreadPoolExecutor(1) as worker:
        telling = worker.submit(alarms.deliver)
        is_told = wait_until(telling.done, 60)
        enough.set()
        server.shutdown()
        server.server_close()

    assert is_told
    assert telling.result() == 1

"""The web application: blueprints, limits, and answers to what goes wrong."""

import http
import json
import re
import secrets
import sqlite3
import time

import sqlalchemy as sa
import structlog
from flask import Flask, Response, g, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from backend import metrics
from backend.answers import EncodeNow
from backend.database import engine
from backend.errors import NextbatchError, UnknownProject
from backend.hooks import Hooks
from backend.web import api, auth, dashboard, gauges, mlbackend, readiness, sessions
from backend.web.openapi import PREFIX

log = structlog.get_logger()

MAX_REQUEST_BYTES = 64 * 2**20  # /predict for 10,000 tasks has 5 MB, TASKS_CREATED the same and more
DATABASE_WAIT_MS = 400  # Label Studio gives a webhook 1 s; the rest of the program waits longer
_MAX_REASON = 400


def create_app(hooks: type[Hooks] = Hooks, encode_now: EncodeNow | None = None) -> Flask:
    """The application. `hooks` answers Label Studio's calls; give a subclass to answer them otherwise.

    `encode_now` turns the addresses of a few items that a person has open into embeddings, within 5 s.
    """
    if encode_now is not None:
        hooks = type(hooks.__name__, (hooks,), {"encode_now": staticmethod(encode_now)})
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES, MAX_FORM_MEMORY_SIZE=2**20)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    sessions.prepare(app)
    _hurry(engine())
    app.register_blueprint(mlbackend.blueprint(hooks))
    app.register_blueprint(api.blueprint())
    app.register_blueprint(dashboard.blueprint())
    metrics.serve_also(gauges.LoopGauges())
    app.add_url_rule("/metrics", view_func=_metrics)
    app.add_url_rule("/ready", view_func=readiness.ready)
    app.before_request(_start_clock)
    app.after_request(_observe)
    app.teardown_request(_stop_clock)
    app.register_error_handler(NextbatchError, _explain)
    app.register_error_handler(OperationalError, _database_busy)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected)
    return app


def problem(status: int, text: str) -> Response:
    """A refusal in plain words, in the body and in the status line.

    Label Studio throws the body of a refusal away and shows its status line: "400 Client Error: <reason> for url …".
    """
    reason = re.sub(r"[^\x20-\x7e]+", " ", text.replace("\n", " ")).strip()  # a status line is one line of ASCII
    return Response(text.rstrip() + "\n", status=f"{status} {reason[:_MAX_REASON] or 'Refused'}", mimetype="text/plain")


def _hurry(database: sa.Engine) -> None:
    """Keep SQLite from keeping people: give up on its write lock early, and leave its checkpoints to the worker.

    The worker commits every two seconds and checkpoints a WAL above 1,000 pages; were it away, we do at 20,000.
    """
    if database.dialect.name != "sqlite":
        return

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={DATABASE_WAIT_MS}")
        connection.execute("PRAGMA wal_autocheckpoint=20000")

    database.dispose()
    sa.event.listen(database, "connect", on_connect)


def _metrics() -> Response:
    return auth.require_basic() or Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)


def _start_clock() -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(endpoint=request.endpoint, request=secrets.token_hex(4))
    g.started = time.perf_counter()
    g.in_flight = metrics.in_flight.labels(request.endpoint or "none")
    g.in_flight.inc()


def _stop_clock(_error: BaseException | None) -> None:
    if "in_flight" in g:
        g.in_flight.dec()


def _observe(response: Response) -> Response:
    endpoint = request.endpoint or "none"  # never the path: it is the caller's text
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    metrics.requests.labels(endpoint, f"{response.status_code // 100}xx").observe(seconds)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if request.path.startswith(PREFIX) and response.status_code >= 400 and response.mimetype == "text/plain":
        _as_problem(response)
    return response


def _as_problem(response: Response) -> None:
    """The refusal as RFC 9457 wants it, for programs."""
    status = response.status_code
    title = http.HTTPStatus(status).phrase
    detail = response.get_data(as_text=True).strip()
    response.set_data(json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}))
    response.content_type = "application/problem+json"


def _explain(error: NextbatchError) -> Response:
    log.warning("web.refused", endpoint=request.endpoint, cause=type(error).__name__)
    return problem(404 if isinstance(error, UnknownProject) else 400, str(error))


def _http_problem(error: HTTPException) -> Response:
    text = error.description or error.name
    return Response(f"{text}\n", status=error.code or 500, headers=_allowed(error), mimetype="text/plain")


def _allowed(error: HTTPException) -> dict[str, str]:
    return {name: value for name, value in error.get_headers() if name not in ("Content-Type", "Content-Length")}


def _database_busy(error: OperationalError) -> Response:
    log.warning("web.database_busy", endpoint=request.endpoint, cause=str(error.orig))
    answer = problem(503, "The database did not answer in time. Try again.")
    answer.headers["Retry-After"] = "1"
    return answer


def _unexpected(error: Exception) -> Response:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
    log.error(
        "web.failed", endpoint=request.endpoint, cause=type(error).__name__, where=where
    )  # no text: may hold data
    return problem(500, "Something went wrong inside nextbatch; its log has the place.")

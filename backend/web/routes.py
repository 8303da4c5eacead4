"""The API's routes: those that read stand here, those that write in `writes`. Each is there once."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session
from werkzeug.exceptions import NotFound

from backend.database import project_named
from backend.rounds.arms import ComparisonView, comparisons
from backend.web.route import Asked, Route
from backend.web.views.batches import BatchLine, BatchView, PickView, batches, find_batch
from backend.web.views.health import AlertView, Health, alerts, health
from backend.web.views.items import ItemView, items
from backend.web.views.jobs import JobView, find_job, jobs
from backend.web.views.logs import LineView, lines
from backend.web.views.models import Curve, ModelView, curve, models
from backend.web.views.page import Page
from backend.web.views.projects import ProjectLine, ProjectState, project_state, projects
from backend.web.views.queries import QueryView, find_query, picks_of, queries
from backend.web.views.rounds import RoundView, find_round, recent_rounds
from backend.web.writes import WRITES

T = TypeVar("T")


def _projects(session: Session, _: Asked) -> list[ProjectLine]:
    return projects(session)


def _project(session: Session, _: Asked, name: str) -> ProjectState:
    return project_state(session, name)


def _rounds(session: Session, asked: Asked, name: str) -> Page[RoundView]:
    return recent_rounds(session, project_named(session, name), asked.limit, asked.start)


def _round(session: Session, _: Asked, name: str, number: int) -> RoundView:
    return _found(find_round(session, project_named(session, name), number), f"round {number}", name)


def _jobs(session: Session, asked: Asked, name: str) -> Page[JobView]:
    return jobs(session, project_named(session, name), asked.limit, asked.start)


def _job(session: Session, _: Asked, name: str, number: int) -> JobView:
    return _found(find_job(session, project_named(session, name), number), f"job {number}", name)


def _log_of(kind: str) -> Callable[..., Page[LineView]]:
    def log(session: Session, asked: Asked, name: str, number: int) -> Page[LineView]:
        found = lines(session, project_named(session, name), kind, number, asked.limit, asked.start)
        return _found(found, f"{kind.removesuffix('s').replace('-', ' ')} {number}", name)

    return log


def _batches(session: Session, asked: Asked, name: str) -> Page[BatchLine]:
    return batches(session, project_named(session, name), asked.limit, asked.start)


def _batch(session: Session, asked: Asked, name: str, number: int) -> BatchView:
    project = project_named(session, name)
    found = find_batch(session, project, number, asked.limit, asked.start or 0)
    return _found(found, f"batch {number}", name)


def _queries(session: Session, asked: Asked, name: str) -> Page[QueryView]:
    return queries(session, project_named(session, name), asked.limit, asked.start)


def _query(session: Session, _: Asked, name: str, number: int) -> QueryView:
    return _found(find_query(session, project_named(session, name), number), f"query {number}", name)


def _picks(session: Session, asked: Asked, name: str, number: int) -> Page[PickView]:
    found = picks_of(session, project_named(session, name), number, asked.limit, asked.start or 0)
    return _found(found, f"query {number}", name)


def _models(session: Session, asked: Asked, name: str) -> Page[ModelView]:
    return models(session, project_named(session, name), asked.limit, asked.start)


def _curve(session: Session, _: Asked, name: str) -> Curve:
    return curve(session, project_named(session, name))


def _backtests(session: Session, _: Asked, name: str) -> list[ComparisonView]:
    return comparisons(session, project_named(session, name).id, "backtest")


def _items(session: Session, asked: Asked, name: str) -> Page[ItemView]:
    return items(session, project_named(session, name), asked.limit, asked.start or 0, asked.state)


def _alerts(session: Session, asked: Asked, name: str) -> Page[AlertView]:
    return alerts(session, project_named(session, name), asked.limit, asked.start)


def _health(session: Session, _: Asked, name: str) -> Health:
    return health(session, project_named(session, name))


def _found(value: T | None, what: str, name: str) -> T:
    if value is None:
        raise NotFound(f"{name} has no {what}.")
    return value


_ONE = "/projects/{name}"
ROUTES = (
    Route("GET", "/projects", "list_projects", "All projects by name.", list[ProjectLine], _projects),
    Route("GET", _ONE, "get_project", "A project's state in numbers.", ProjectState, _project),
    Route("GET", f"{_ONE}/rounds", "list_rounds", "Rounds, newest first.", Page[RoundView], _rounds, is_list=True),
    Route("GET", f"{_ONE}/rounds/{{number}}", "get_round", "One round, with its progress.", RoundView, _round),
    *(
        Route(
            "GET",
            f"{_ONE}/{kind}/{{number}}/log",
            f"get_{kind.removesuffix('s').replace('-', '_')}_log",
            f"The last lines that {what} wrote, newest first.",
            Page[LineView],
            _log_of(kind),
            is_list=True,
        )
        for kind, what in (
            ("rounds", "a round or a query"),
            ("jobs", "a job"),
            ("encoder-changes", "a change of the encoder"),
        )
    ),
    Route(
        "GET",
        f"{_ONE}/jobs",
        "list_jobs",
        "Parts of the last shared scan, newest first.",
        Page[JobView],
        _jobs,
        is_list=True,
    ),
    Route("GET", f"{_ONE}/jobs/{{number}}", "get_job", "One part of a scan, with its progress.", JobView, _job),
    Route("GET", f"{_ONE}/batches", "list_batches", "Batches, newest first.", Page[BatchLine], _batches, is_list=True),
    Route(
        "GET",
        f"{_ONE}/batches/{{number}}",
        "get_batch",
        "A batch with its picks in rank order.",
        BatchView,
        _batch,
        is_list=True,
    ),
    Route("GET", f"{_ONE}/queries", "list_queries", "Queries, newest first.", Page[QueryView], _queries, is_list=True),
    Route("GET", f"{_ONE}/queries/{{number}}", "get_query", "One query, with its progress.", QueryView, _query),
    Route(
        "GET",
        f"{_ONE}/queries/{{number}}/picks",
        "list_picks",
        "What a query chose: items in order, with scores and reasons.",
        Page[PickView],
        _picks,
        is_list=True,
    ),
    Route("GET", f"{_ONE}/models", "list_models", "Versions, newest first.", Page[ModelView], _models, is_list=True),
    Route("GET", f"{_ONE}/curve", "get_curve", "The learning curve and what it advises.", Curve, _curve),
    Route(
        "GET",
        f"{_ONE}/backtests",
        "list_backtests",
        "The last ten backtests on the project's labels, newest first.",
        list[ComparisonView],
        _backtests,
    ),
    Route(
        "GET",
        f"{_ONE}/items",
        "list_items",
        "Items by id.",
        Page[ItemView],
        _items,
        is_list=True,
        has_states=True,
    ),
    Route("GET", f"{_ONE}/alerts", "list_alerts", "Alerts, newest first.", Page[AlertView], _alerts, is_list=True),
    Route("GET", f"{_ONE}/health", "get_health", "Failed items by reason, workers, the last event.", Health, _health),
    *WRITES,
)

"""The API's routes: each stands here once. Flask serves them, and the OpenAPI document describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session
from werkzeug.exceptions import NotFound

from backend.database import project_named, reading, transaction
from backend.rounds.queue import request_round
from backend.web.views.batches import BatchLine, BatchView, batches, find_batch
from backend.web.views.health import AlertView, Health, alerts, health
from backend.web.views.items import ItemView, items
from backend.web.views.models import Curve, ModelView, curve, models
from backend.web.views.page import Page
from backend.web.views.projects import ProjectLine, ProjectState, project_state, projects
from backend.web.views.rounds import RoundView, find_round, recent_rounds, view

T = TypeVar("T")
USUAL = 50  # rows a page


@dataclass(frozen=True)
class Asked:
    """What a call asked for: the page's length and where it begins, and the state to filter by."""

    limit: int = USUAL
    start: int | None = None
    state: str | None = None


@dataclass(frozen=True)
class Route:
    """One operation. `path` as in OpenAPI; `answer(session, asked, **path parameters)` makes a value of `type`."""

    method: str
    path: str
    name: str
    summary: str
    type: Any
    answer: Callable[..., Any]
    is_list: bool = False
    has_states: bool = False
    status: int = 200

    @property
    def writes(self) -> bool:
        return self.method != "GET"


@dataclass(frozen=True)
class Problem:
    """What went wrong, after RFC 9457. `detail` says how to mend it."""

    type: str
    title: str
    status: int
    detail: str


def answer(route: Route, asked: Asked, **parameters: Any) -> Any:
    """The route's answer, read or written in one transaction."""
    with transaction() if route.writes else reading() as session:
        return route.answer(session, asked, **parameters)


def _projects(session: Session, _: Asked) -> list[ProjectLine]:
    return projects(session)


def _project(session: Session, _: Asked, name: str) -> ProjectState:
    return project_state(session, name)


def _rounds(session: Session, asked: Asked, name: str) -> Page[RoundView]:
    return recent_rounds(session, project_named(session, name), asked.limit, asked.start)


def _round(session: Session, _: Asked, name: str, number: int) -> RoundView:
    return _found(find_round(session, project_named(session, name), number), f"round {number}", name)


def _ask(session: Session, _: Asked, name: str) -> RoundView:
    return view(request_round(session, project_named(session, name).id, "api"))


def _batches(session: Session, asked: Asked, name: str) -> Page[BatchLine]:
    return batches(session, project_named(session, name), asked.limit, asked.start)


def _batch(session: Session, asked: Asked, name: str, number: int) -> BatchView:
    project = project_named(session, name)
    found = find_batch(session, project, number, asked.limit, asked.start or 0)
    return _found(found, f"batch {number}", name)


def _models(session: Session, asked: Asked, name: str) -> Page[ModelView]:
    return models(session, project_named(session, name), asked.limit, asked.start)


def _curve(session: Session, _: Asked, name: str) -> Curve:
    return curve(session, project_named(session, name))


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
    Route(
        "POST",
        f"{_ONE}/rounds",
        "ask_for_round",
        "Ask for a round; while one waits, it is that one.",
        RoundView,
        _ask,
        status=202,
    ),
    Route("GET", f"{_ONE}/rounds/{{number}}", "get_round", "One round, with its progress.", RoundView, _round),
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
    Route("GET", f"{_ONE}/models", "list_models", "Versions, newest first.", Page[ModelView], _models, is_list=True),
    Route("GET", f"{_ONE}/curve", "get_curve", "The learning curve and what it advises.", Curve, _curve),
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
)

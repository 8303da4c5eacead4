"""The service API under /api/v1: JSON in and out, problems after RFC 9457, credentials as everywhere else."""

import json
import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from backend.web import auth
from backend.web.openapi import LARGEST, PREFIX, adapter, document
from backend.web.origin import refuse_other_sites
from backend.web.routes import ROUTES, USUAL, Asked, Route, answer
from backend.web.views.items import STATES
from backend.web.views.page import MOST

_DIGITS = re.compile("[0-9]{1,19}")


def blueprint() -> Blueprint:
    """All routes of the table, and the document that describes them."""
    pages = Blueprint("api", __name__, url_prefix=PREFIX)
    pages.before_request(auth.require_basic)
    pages.before_request(refuse_impossible_names)
    pages.before_request(_require_json)
    pages.after_request(_private)
    for route in ROUTES:
        rule = route.path.replace("{number}", "<int:number>").replace("{name}", "<name>")
        pages.add_url_rule(rule, route.name, _serve(route), methods=[route.method])

    @pages.get("/openapi.json")
    def get_openapi() -> Any:
        return document()

    return pages


def _serve(route: Route) -> Callable[..., Response]:
    def serve(**parameters: Any) -> Response:
        if parameters.get("number", 0) > LARGEST:
            raise BadRequest("The number in the path is larger than any that is used.")
        value = answer(route, _asked(route), **parameters)
        body = adapter(route).dump_json(value)
        return Response(body, status=route.status, mimetype="application/json")

    return serve


def refuse_impossible_names() -> None:
    """Postgres knows no text with a NUL, so such a name must not get there."""
    if "\0" in (request.view_args or {}).get("name", ""):
        raise NotFound("No project has such a name.")


def _require_json() -> None:
    """A page of another site can make a browser post a form with the user's credentials, but no JSON."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    refuse_other_sites()
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send a JSON object, with Content-Type: application/json.")
    try:
        body = json.loads(request.get_data(cache=False) or b"null")
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is no JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body is no JSON object.")


def _asked(route: Route) -> Asked:
    if not route.is_list:
        return Asked()
    limit = _number("limit", 1, MOST)
    state = request.args.get("state") if route.has_states else None
    if state is not None and state not in STATES:
        raise BadRequest(f"state must be one of {', '.join(STATES)}.")
    return Asked(USUAL if limit is None else limit, _number("from", 0, LARGEST), state)


def _number(name: str, least: int, most: int) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    if not _DIGITS.fullmatch(given) or not least <= int(given) <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}.")
    return int(given)


def _private(response: Response) -> Response:
    """For this caller only; who polls with If-None-Match is told 304 while nothing changed."""
    response.headers.setdefault("Cache-Control", "private, no-cache")
    if request.method == "GET" and response.status_code == 200:
        response.add_etag()
        response.make_conditional(request)
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response

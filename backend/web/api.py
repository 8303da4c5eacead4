"""The service API under /api/v1: JSON in and out, problems after RFC 9457, tokens with scopes or basic credentials."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, g, request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from backend.database import reading, transaction
from backend.errors import KeyReused, LabelConflict, NextbatchError, NotLabelledHere, ProjectExists, TooManyQueries
from backend.pool.catalog import storable
from backend.web import auth, kept
from backend.web.openapi import LARGEST, LINES, PREFIX, adapter, body_adapter, document
from backend.web.origin import refuse_other_sites
from backend.web.route import USUAL, Asked, Route
from backend.web.routes import ROUTES
from backend.web.views.items import STATES
from backend.web.views.page import MOST

_DIGITS = re.compile("[0-9]{1,19}")
_SCOPES = {f"api.{route.name}": route.scope for route in ROUTES}
_MOST_MISTAKES = 5
_CONFLICTS = (KeyReused, LabelConflict, NotLabelledHere, ProjectExists)


def blueprint() -> Blueprint:
    """All routes of the table, and the document that describes them."""
    pages = Blueprint("api", __name__, url_prefix=PREFIX)
    pages.before_request(_require_scope)
    pages.before_request(refuse_impossible_names)
    pages.before_request(_require_our_page)
    pages.after_request(_private)
    pages.register_error_handler(sa.exc.IntegrityError, _same_moment)
    for kind in _CONFLICTS:
        pages.register_error_handler(kind, _conflict)
    pages.register_error_handler(TooManyQueries, _later)
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
        if route.writes:
            return _written(route, parameters)
        with reading() as session:
            value = route.answer(session, _asked(route), **parameters)
        return _json(adapter(route).dump_json(value), route.status)

    return serve


def _written(route: Route, parameters: dict[str, Any]) -> Response:
    """Do it, or say again what was answered to the same request with the same key."""
    once = kept.asked_once(g.caller)
    given = kept.Digested(request.stream)
    has_lines = route.takes_lines and request.mimetype == LINES
    body = io.BufferedReader(given, 2**16) if has_lines else _read_body(route, given)
    if once is not None:
        with reading() as session:
            before = kept.find(session, once)
        if before is not None:
            return _again(before, given)
    try:
        if route.takes_lines:  # it writes in short transactions of its own, and may be repeated
            answer = adapter(route).dump_json(route.answer(None, Asked(body=body), **parameters))
            if once is not None:
                with transaction() as session:
                    kept.keep(session, once, given.digest, route.status, answer)
            return _json(answer, route.status)
        with transaction() as session:
            answer = adapter(route).dump_json(route.answer(session, Asked(body=body), **parameters))
            if once is not None:
                kept.keep(session, once, given.digest, route.status, answer)
    except sa.exc.IntegrityError:
        with reading() as session:
            before = None if once is None else kept.find(session, once)
        if before is None:
            raise
        return _again(before, given)
    return _json(answer, route.status)


def _again(before: Any, given: kept.Digested) -> Response:
    while given.read(2**16):
        pass
    kept.check(before, given.digest)
    response = _json(before.body.encode(), before.status)
    response.headers[kept.REPLAYED] = "true"
    return response


def _json(body: bytes, status: int) -> Response:
    return Response(body, status=status, mimetype="application/json")


def refuse_impossible_names() -> None:
    """Postgres knows no text with a NUL, so such a name must not get there."""
    if "\0" in (request.view_args or {}).get("name", ""):
        raise NotFound("No project has such a name.")


def _require_scope() -> Response | None:
    g.caller = ""
    found = auth.caller(_SCOPES.get(request.endpoint or "", "read"))
    if isinstance(found, Response):
        return found
    g.caller = found
    return None


def _require_our_page() -> None:
    """A page of another site can make a browser post a form with the user's credentials, but no JSON."""
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        refuse_other_sites()


def _read_body(route: Route, given: kept.Digested) -> Any:
    """The JSON object, of the route's own kind. Raises BadRequest with what is wrong, and where."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send a JSON object, with Content-Type: application/json.")
    try:
        body = json.loads(given.readall() or b"null")
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is no JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body is no JSON object.")
    if route.body is None:
        return None
    if any(storable(text) != text for text in _texts(body)):
        raise BadRequest("The body has a NUL, or half a surrogate pair.")
    try:
        return body_adapter(route).validate_python(body)
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()]
        raise BadRequest("; ".join(mistakes[:_MOST_MISTAKES])[:2_000]) from None


def _texts(value: Any) -> Iterator[str]:
    """Every string in it: a database may refuse what JSON can hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, below in value.items():
            yield name
            yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)


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


def _conflict(error: NextbatchError) -> Response:
    return Response(f"{error}\n", status=409, mimetype="text/plain")


def _later(error: NextbatchError) -> Response:
    return Response(f"{error}\n", status=429, mimetype="text/plain", headers={"Retry-After": "10"})


def _same_moment(_error: Exception) -> Response:
    return Response("Somebody did the same at this moment. Ask again.\n", status=409, mimetype="text/plain")


def _private(response: Response) -> Response:
    """For this caller only; who polls with If-None-Match is told 304 while nothing changed."""
    response.headers.setdefault("Cache-Control", "private, no-cache")
    if request.method == "GET" and response.status_code == 200:
        response.add_etag()
        response.make_conditional(request)
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response

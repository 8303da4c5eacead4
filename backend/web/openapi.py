"""The OpenAPI 3.1 document, made from the routes and from the types of their answers."""

import re
from functools import lru_cache
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from backend.web.kept import HEADER, REPLAYED
from backend.web.route import USUAL, Problem, Route
from backend.web.routes import ROUTES
from backend.web.views.items import STATES
from backend.web.views.page import MOST

PREFIX = "/api/v1"
LARGEST = 2**31 - 1  # what an integer column of Postgres holds
_KEY_HEADER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The same key and request within a day: the same answer, and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_TAG_HEADER = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of an answer that you have: 304 and no body while nothing changed.",
    "schema": {"type": "string"},
}
_Kind = tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]
_NAME = "^[a-z0-9][a-z0-9_-]{0,62}$"
_PARAMETERS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "pattern": _NAME, "description": "The project's name."},
    "number": {"type": "integer", "minimum": 0, "maximum": LARGEST},
}
_REFUSALS = {
    400: "A parameter or the body cannot be read, or asks for what cannot be.",
    401: "Credentials are missing or wrong.",
    403: "The token's scope is too small, or another site's page asked.",
    404: "There is no such thing.",
    503: "The database did not answer in time; try again.",
}
_WRITE_REFUSALS = {
    409: "Something else stands in the way, such as a project of that name, or the key of another request.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too much of this waits already; try again later.",
}
LINES = "application/x-ndjson"


@lru_cache(maxsize=64)
def adapter(route: Route) -> TypeAdapter[Any]:
    """What turns the route's answer into JSON."""
    return TypeAdapter(route.type)


@lru_cache(maxsize=64)
def body_adapter(route: Route) -> TypeAdapter[Any]:
    """What checks the route's body."""
    return TypeAdapter(route.body)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document, JSON-ready."""
    problem = TypeAdapter(Problem)
    kinds: list[_Kind] = [(route.name, "serialization", adapter(route)) for route in ROUTES]
    kinds += [(route.name, "validation", body_adapter(route)) for route in ROUTES if route.body is not None]
    schemas, rest = TypeAdapter.json_schemas(
        [*kinds, ("problem", "serialization", problem)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Closed,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        schema, body = schemas[(route.name, "serialization")], schemas.get((route.name, "validation"))
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schema, body)
    paths[f"{PREFIX}/openapi.json"] = {
        "get": {
            "operationId": "get_openapi",
            "summary": "This document.",
            "responses": {
                "200": _json("The document.", {"type": "object"}),
                **_refusals({one: _REFUSALS[one] for one in (401, 403)}),
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nextbatch",
            "version": "1",
            "description": "What the loop does. Lists give `next`, the `from` of the next page.",
        },
        "security": [{}, {"basic": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": rest.get("$defs", {}),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer", "description": "nextbatch tokens create NAME"},
            },
        },
    }


class _Closed(GenerateJsonSchema):
    """Schemas of answers that hold what the document says and nothing else."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        made = super().dataclass_schema(schema)
        if "properties" in made:
            made["additionalProperties"] = False
            made["required"] = list(made["properties"])
        return made


def _operation(route: Route, schema: dict[str, Any], body: dict[str, Any] | None) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.is_list:
        parameters.append(_query("limit", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}))
        parameters.append(_query("from", {"type": "integer", "minimum": 0, "maximum": LARGEST}))
    if route.has_states:
        parameters.append(_query("state", {"enum": list(STATES)}))
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Takes the scope `{route.scope}`.",
        "parameters": parameters,
    }
    if route.writes:
        parameters.append(_KEY_HEADER)
        taken: dict[str, Any] = {"application/json": {"schema": body or {"type": "object"}, "example": route.example}}
        if route.takes_lines:
            taken[LINES] = {"schema": {"type": "string", "description": "A JSON object a line."}}
        operation["requestBody"] = {"required": True, "content": taken}
    refusals = {**_REFUSALS, **_WRITE_REFUSALS} if route.writes else _REFUSALS
    operation["responses"] = {str(route.status): _json(route.summary, schema), **_refusals(refusals)}
    if route.writes:
        replayed = {"description": "Whether this was answered before.", "schema": {"const": "true"}}
        operation["responses"][str(route.status)]["headers"] = {REPLAYED: replayed}
    else:
        parameters.append(_TAG_HEADER)
        operation["responses"][str(route.status)]["headers"] = {
            "ETag": {"required": True, "schema": {"type": "string"}}
        }
        operation["responses"]["304"] = {"description": "Nothing changed since the ETag in If-None-Match."}
    return operation


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusals(texts: dict[int, str]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        str(status): {"description": text, "content": {"application/problem+json": {"schema": schema}}}
        for status, text in sorted(texts.items())
    }

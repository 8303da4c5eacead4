"""The OpenAPI 3.1 document, made from the routes and from the types of their answers."""

import re
from functools import lru_cache
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from backend.web.routes import ROUTES, USUAL, Problem, Route
from backend.web.views.items import STATES
from backend.web.views.page import MOST

PREFIX = "/api/v1"
LARGEST = 2**31 - 1  # what an integer column of Postgres holds
_Kind = tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]
_NAME = "^[a-z0-9][a-z0-9_-]{0,62}$"
_PARAMETERS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "pattern": _NAME, "description": "The project's name."},
    "number": {"type": "integer", "minimum": 0, "maximum": LARGEST},
}
_REFUSALS = {
    400: "A parameter cannot be read.",
    401: "Credentials are missing or wrong.",
    404: "There is no such thing.",
    503: "The database did not answer in time; try again.",
}
_WRITE_REFUSALS = {403: "Another site's page asked.", 415: "The body is not JSON."}


@lru_cache(maxsize=64)
def adapter(route: Route) -> TypeAdapter[Any]:
    """What turns the route's answer into JSON."""
    return TypeAdapter(route.type)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document, JSON-ready."""
    problem = TypeAdapter(Problem)
    kinds: list[_Kind] = [(route.name, "serialization", adapter(route)) for route in ROUTES]
    schemas, rest = TypeAdapter.json_schemas(
        [*kinds, ("problem", "serialization", problem)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Closed,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        schema = schemas[(route.name, "serialization")]
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schema)
    paths[f"{PREFIX}/openapi.json"] = {
        "get": {
            "operationId": "get_openapi",
            "summary": "This document.",
            "responses": {"200": _json("The document.", {"type": "object"}), **_refusals({401: _REFUSALS[401]})},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nextbatch",
            "version": "1",
            "description": "What the loop does. Lists give `next`, the `from` of the next page.",
        },
        "security": [{}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": rest.get("$defs", {}),
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
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


def _operation(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.is_list:
        parameters.append(_query("limit", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}))
        parameters.append(_query("from", {"type": "integer", "minimum": 0, "maximum": LARGEST}))
    if route.has_states:
        parameters.append(_query("state", {"enum": list(STATES)}))
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "parameters": parameters}
    if route.writes:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    refusals = {**_REFUSALS, **_WRITE_REFUSALS} if route.writes else _REFUSALS
    operation["responses"] = {str(route.status): _json(route.summary, schema), **_refusals(refusals)}
    if not route.writes:
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

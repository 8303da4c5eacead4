"""The page of the API: its OpenAPI document as people read it, made here, with no script and nothing from elsewhere."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backend.web.openapi import document

_JSON = "application/json"


@dataclass(frozen=True)
class Field:
    """A parameter, or a member of a body or of an answer. `kind` in words; `place` is path, query, header, or empty."""

    name: str
    kind: str
    says: str
    is_required: bool
    place: str = ""


@dataclass(frozen=True)
class Operation:
    """One call: what it takes and gives. `example` is a body, `gives` the answer's kind, `refusals` text by status."""

    method: str
    path: str
    name: str
    summary: str
    says: str
    parameters: list[Field]
    body: list[Field]
    example: str
    status: str
    gives: str
    refusals: dict[str, str]


@dataclass(frozen=True)
class Kind:
    """An object that answers and bodies are made of."""

    name: str
    says: str
    fields: list[Field]


@lru_cache(maxsize=1)
def operations() -> list[Operation]:
    """All calls, in the document's order."""
    paths: Mapping[str, Mapping[str, Any]] = document()["paths"]
    return [_operation(method, path, one) for path, methods in paths.items() for method, one in methods.items()]


@lru_cache(maxsize=1)
def kinds() -> list[Kind]:
    """The objects by name."""
    found: Mapping[str, Any] = document()["components"]["schemas"]
    return [
        Kind(name, schema.get("description", ""), _fields(schema))
        for name, schema in sorted(found.items())
        if "properties" in schema
    ]


def _operation(method: str, path: str, one: Mapping[str, Any]) -> Operation:
    status, answer = next((code, given) for code, given in one["responses"].items() if code.startswith("2"))
    taken = one.get("requestBody", {}).get("content", {}).get(_JSON, {})
    example = taken.get("example")
    return Operation(
        method=method.upper(),
        path=path,
        name=one["operationId"],
        summary=one["summary"],
        says=one.get("description", ""),
        parameters=[_parameter(given) for given in one.get("parameters", ())],
        body=_fields(_resolved(taken.get("schema", {}))),
        example=json.dumps(example) if example else "",
        status=status,
        gives=_kind(answer["content"][_JSON]["schema"]),
        refusals={code: given["description"] for code, given in one["responses"].items() if code >= "3"},
    )


def _parameter(given: Mapping[str, Any]) -> Field:
    says = given.get("description") or given["schema"].get("description", "")
    return Field(given["name"], _kind(given["schema"]), says, given["required"], given["in"])


def _fields(schema: Mapping[str, Any]) -> list[Field]:
    required = schema.get("required", ())
    return [
        Field(name, _kind(one), one.get("description", ""), name in required)
        for name, one in schema.get("properties", {}).items()
    ]


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document()["components"]["schemas"][_named(schema["$ref"])]
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return _named(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object":
        rest = schema.get("additionalProperties")
        return f"object of {_kind(rest)}" if isinstance(rest, Mapping) and rest else "object"
    bounds = [f"{word} {schema[name]:g}" for name, word in (("minimum", "from"), ("maximum", "to")) if name in schema]
    return " ".join([str(schema.get("format", kind)), *bounds])


def _named(reference: str) -> str:
    return reference.rpartition("/")[2]

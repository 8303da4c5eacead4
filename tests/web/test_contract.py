"""The API held to its own document by schemathesis: whatever is sent, its answer is one of those described."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from backend.web.app import create_app
from backend.web.openapi import PREFIX, document
from tests.web.played import VERSIONS, Played, play, with_query

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is missing: pip install nextbatch[test]")
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

if TYPE_CHECKING:
    from schemathesis.openapi import OpenApiSchema

EXAMPLES = int(os.environ.get("NEXTBATCH_EXAMPLES", "3"))
"""Of each call, and each way to send it: as the document says, and not so. `make fuzz` sends more."""
CALLS = [one["operationId"] for methods in document()["paths"].values() for one in methods.values()]
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def played(sqlite_home: Path) -> Played:
    return play(sqlite_home / "data")


@pytest.fixture(scope="module")
def query(played: Played) -> int:
    return with_query(played)


@pytest.fixture(scope="module")
def schema(played: Played) -> "OpenApiSchema":
    assert played
    return schemathesis.openapi.from_wsgi(f"{PREFIX}/openapi.json", create_app())


@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_sent_the_answer_is_one_of_those_described(
    schema: "OpenApiSchema", played: Played, query: int, call: str
) -> None:
    operation = schema.find_operation_by_id(call)
    there = {"name": played.name, "number": query if "/queries/" in operation.path else VERSIONS}
    wrong = [*CHECKS, checks.negative_data_rejection]
    known = {name: there[name] for name in there if f"{{{name}}}" in operation.path}

    send(operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known), CHECKS)
    if known:
        send(operation.as_strategy(GenerationMode.POSITIVE), CHECKS)
    if [*operation.query, *operation.body]:
        send(operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=known), wrong)
    elif known:
        send(operation.as_strategy(GenerationMode.NEGATIVE), wrong)


def send(cases: Any, expected: list[Any]) -> None:
    """Some of these cases, the same ones in every run."""

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def each(case: Any) -> None:
        case.call_and_validate(checks=expected)

    each()

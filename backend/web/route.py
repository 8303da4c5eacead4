"""What a route of the API is: Flask serves it, and the OpenAPI document describes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.tokens import Scope

USUAL = 50  # rows a page


@dataclass(frozen=True)
class Asked:
    """What a call asked for: the page's length and where it begins, the state to filter by, and the body.

    `body` is of the route's own kind; where lines were sent, the file that they are read from.
    """

    limit: int = USUAL
    start: int | None = None
    state: str | None = None
    body: Any = None


@dataclass(frozen=True)
class Route:
    """One operation. `path` as in OpenAPI; `answer(session, asked, **path parameters)` makes a value of `type`.

    body: the kind of the JSON that it takes, with an `example` of it; None where it takes an empty object. A route that
    `takes_lines` may be sent JSON lines instead, reads them as they come, and manages its transactions: `session` is
    None.
    """

    method: str
    path: str
    name: str
    summary: str
    type: Any
    answer: Callable[..., Any]
    is_list: bool = False
    has_states: bool = False
    status: int = 200
    scope: Scope = "read"
    body: Any = None
    example: Mapping[str, Any] = field(default_factory=dict, hash=False)
    takes_lines: bool = False

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

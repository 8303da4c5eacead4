"""How templates write values: the same on the pages and in the report."""

from collections.abc import Callable, Mapping
from typing import Any

from backend.database import now
from backend.web import words


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", "\N{THIN SPACE}")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "percent": _percent,
    "number": _number,
    "ago": lambda moment: words.ago(moment, now()),
    "trigger": words.trigger,
    "duration": words.duration,
}

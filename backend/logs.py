"""What processes write while they run: one JSON object a line for machines, coloured lines in a terminal.

Every line carries the ids that are bound where it is written: `project`, `round` and `run` (the engine's id of it).
Lines of a run also wait here, a bounded number of them, for whoever keeps them (`rounds.journal`).
"""

import contextlib
import datetime as dt
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from backend.settings import settings

_MOST_WAITING = 5_000
_MOST_FACTS, _MOST_TEXT = 40, 1_000
_BOUND = frozenset({"event", "level", "timestamp", "project", "round", "job", "change", "run"})


@dataclass(frozen=True)
class Line:
    """A line that `run` wrote: what happened, and its facts in words of at most 1,000 characters."""

    run: str
    at: dt.datetime
    level: str
    event: str
    facts: dict[str, str]


_waiting: deque[Line] = deque(maxlen=_MOST_WAITING)


def configure(stream: TextIO | None = None) -> None:
    """Send our lines, and those of the libraries, to `stream` (stderr), as NEXTBATCH_LOG says."""
    stream = stream or sys.stderr
    form = settings().log
    is_json = form == "json" or (form == "auto" and not stream.isatty())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _keep,
    ]
    renderer: Processor = structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common], processors=[drop, renderer]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("dbos").addHandler(logging.NullHandler())  # without one it brings its own, in its own form


def about(**ids: object) -> AbstractContextManager[None]:
    """Lines written inside, from this thread, carry these ids."""
    return structlog.contextvars.bound_contextvars(**ids)


def carried() -> Callable[[], object]:
    """For a pool of threads' `initializer`: their lines carry the ids that are bound here and now."""
    return partial(structlog.contextvars.bind_contextvars, **structlog.contextvars.get_contextvars())


def take_lines() -> list[Line]:
    """What runs wrote since this was last asked, at most 5,000 lines, the newest."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(_waiting.popleft())
    return taken


def put_back(lines: Iterable[Line]) -> None:
    """Lines that could not be kept now; where there are too many, the oldest are lost."""
    lines, room = list(lines), _MOST_WAITING - len(_waiting)
    _waiting.extendleft(reversed(lines[max(0, len(lines) - room) :]))


def _keep(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A line that cannot be kept is written all the same."""
    if run := event.get("run"):
        with contextlib.suppress(Exception):
            names = [name for name in event if name not in _BOUND and not name.startswith("_")][:_MOST_FACTS]
            facts = {name: _short(event[name]) for name in names}
            _waiting.append(Line(str(run), dt.datetime.now(dt.UTC), str(event["level"]), _short(event["event"]), facts))
    return event


def _short(value: object) -> str:
    """In words; of what is too long, such as a traceback, the end."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MOST_TEXT else "…" + text[1 - _MOST_TEXT :]

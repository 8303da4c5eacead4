"""What processes write while they run: one JSON object a line for machines, coloured lines in a terminal.

Every line carries the ids that are bound where it is written: `project`, `round` and `run` (the engine's id of it).
"""

import logging
import sys
from contextlib import AbstractContextManager
from typing import TextIO

import structlog
from structlog.typing import Processor

from backend.settings import settings


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

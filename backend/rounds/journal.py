"""What runs wrote, kept for people: the last lines of each round, job and change of an encoder, in the database.

All workers write there, wherever they are, a few lines at a time and beside the work: a run waits for none of it, and a
database that is away costs lines and nothing else. `run` is what the engine calls a workflow.
"""

import re

import sqlalchemy as sa
import structlog
from pydantic import SecretStr

from backend.database import EncoderChange, Job, LogLine, Project, Round, transaction
from backend.logs import Line, put_back, take_lines
from backend.pool.catalog import storable
from backend.pool.http import shown
from backend.settings import settings

log = structlog.get_logger()

EVERY_S = 1.0
MOST_OF_A_RUN = 200
MOST = 20_000  # of all runs together: a thousand rounds

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_SECRET_NAME = re.compile(r"token|passw|secret|api_?key|authorization|signature|credential", re.IGNORECASE)
_HIDDEN = "…"


def flush() -> int:
    """Keep what runs wrote since the last time, without secrets; returns how many lines. Never raises: what a database
    that is away refuses is tried again with the next lines."""
    lines = take_lines()
    if not lines:
        return 0
    try:
        with transaction() as session:
            session.execute(sa.insert(LogLine), [_row(line) for line in lines])
            for run in dict.fromkeys(line.run for line in lines):
                _cut(session, LogLine.run == run, MOST_OF_A_RUN)
            _cut(session, sa.true(), MOST)
    except sa.exc.OperationalError:
        put_back(lines)
        return 0
    except Exception as problem:
        log.warning("journal.lines_lost", lines=len(lines), problem=type(problem).__name__)
        return 0
    return len(lines)


def run_of(session: sa.orm.Session, project: Project, kind: str, number: int) -> str | None:
    """The run of one of the project's `rounds`, `jobs` or `encoder-changes`; None where it has no such."""
    if kind == "rounds":
        mine = (Round.project_id == project.id, Round.number == number)
        return session.scalar(sa.select(Round.workflow_id).where(*mine))
    table: type[Job] | type[EncoderChange] = Job if kind == "jobs" else EncoderChange
    is_there = session.scalar(sa.select(table.id).where(table.id == number, table.project_id == project.id))
    return None if is_there is None else f"{'job' if kind == 'jobs' else 'encoder_change'}:{number}"


def _cut(session: sa.orm.Session, which: sa.ColumnElement[bool], most: int) -> None:
    """Delete the oldest of these lines beyond so many: one look into an index where there are fewer."""
    too_old = sa.select(LogLine.id).where(which).order_by(LogLine.id.desc()).offset(most).limit(1)
    if (newest := session.scalar(too_old)) is not None:
        session.execute(sa.delete(LogLine).where(which, LogLine.id <= newest))


def _row(line: Line) -> dict[str, object]:
    facts = {
        _clean(name): _HIDDEN if _SECRET_NAME.search(name) else _clean(value) for name, value in line.facts.items()
    }
    return {"run": line.run[:128], "at": line.at, "level": line.level[:8], "event": _clean(line.event), "facts": facts}


def _clean(text: str) -> str:
    """Without our secrets, and addresses without login and query, where others' are."""
    for secret in _secrets():
        text = text.replace(secret, _HIDDEN)
    return storable(_ADDRESS.sub(lambda found: shown(found[0]), text))


def _secrets() -> list[str]:
    given = [value.get_secret_value() for _, value in settings() if isinstance(value, SecretStr)]
    return [value for value in given if len(value) > 3]

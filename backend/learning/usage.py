"""How often each version was asked, a day: counted in memory, written by one thread every ten seconds at most.

The process that is killed loses what it counted since: these are figures for people, not books.
"""

import atexit
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.database import ModelUse, ModelVersion, now, transaction

log = structlog.get_logger()

EVERY_S = 10.0

_lock = threading.Lock()
_writing = threading.Lock()
_waiting: Counter[int] = Counter()
_writer = ThreadPoolExecutor(1, thread_name_prefix="usage")
_written_at = 0.0


def count(version_id: int, answers: int) -> None:
    """The version gave so many answers. Costs no look into the database."""
    global _written_at
    if not answers:
        return
    with _lock:
        _waiting[version_id] += answers
        is_due = time.monotonic() - _written_at >= EVERY_S
        if is_due:
            _written_at = time.monotonic()
    if is_due:
        _writer.submit(flush)


def flush() -> None:
    """Write what was counted, after whoever writes already; what the database refuses is counted on."""
    with _writing:
        _write()


def _write() -> None:
    with _lock:
        counted = dict(_waiting)
        _waiting.clear()
    if not counted:
        return
    day = now().date()
    try:
        with transaction() as session:
            insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
            known = set(session.scalars(sa.select(ModelVersion.id).where(ModelVersion.id.in_(counted))))
            for version_id, answers in sorted(counted.items()):
                if version_id not in known:  # gone for good
                    continue
                added = insert(ModelUse).values(version_id=version_id, day=day, answers=answers)
                session.execute(
                    added.on_conflict_do_update(
                        index_elements=["version_id", "day"],
                        set_={"answers": ModelUse.answers + added.excluded.answers},
                    )
                )
    except sa.exc.SQLAlchemyError as error:
        log.warning("usage.not_written", cause=type(error).__name__)
        with _lock:
            _waiting.update(counted)


def asked(session: Session, version_id: int) -> int:
    """Answers that the version gave, as far as they are written."""
    total = session.scalar(sa.select(sa.func.sum(ModelUse.answers)).where(ModelUse.version_id == version_id))
    return int(total or 0)


atexit.register(flush)

"""Answers that may be asked for again: a request with an Idempotency-Key is done once, and told the same when repeated.

The answer is kept in the transaction of the deed, for a day. An error keeps nothing: the same key may try again.
"""

import datetime as dt
import hashlib
import io
import re
from dataclasses import dataclass
from typing import IO, Any

import sqlalchemy as sa
from flask import request
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest

from backend.database import KeptAnswer, now
from backend.errors import KeyReused

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_FOR = dt.timedelta(hours=24)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Once:
    """A key, and who uses it: two callers' keys are two keys."""

    caller: str
    key: str


def asked_once(caller: str) -> Once | None:
    """The request's key, if it has one. Raises BadRequest for one that is no key."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise BadRequest(f"{HEADER} must be 1 to 255 visible ASCII characters.")
    return Once(caller, key)


def find(session: Session, once: Once) -> KeptAnswer | None:
    """What was answered to this key within a day."""
    mine = (KeptAnswer.caller == once.caller, KeptAnswer.key == once.key)
    return session.scalar(sa.select(KeptAnswer).where(*mine, KeptAnswer.created_at > now() - KEPT_FOR))


def keep(session: Session, once: Once, digest: str, status: int, body: bytes) -> None:
    """Keep an answer, and forget those that are older than a day."""
    session.execute(sa.delete(KeptAnswer).where(KeptAnswer.created_at <= now() - KEPT_FOR))
    row = KeptAnswer(caller=once.caller, key=once.key, request=digest, status=status, body=body.decode())
    session.add(row)
    session.flush()


def check(kept: KeptAnswer, digest: str) -> None:
    """Raises KeyReused where the answer is that of another request."""
    if kept.request != digest:
        raise KeyReused


class Digested(io.RawIOBase):
    """A request's body as a file, whose digest is known when it has been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256(f"{request.method} {request.full_path}\n".encode())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            data = self._file.read(len(view))
            view[: len(data)] = data
        self._hash.update(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of the request so far."""
        return self._hash.hexdigest()

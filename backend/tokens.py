"""Tokens: who may call the API, and how far. A secret has 256 random bits; kept is its sha256 alone."""

import datetime as dt
import hashlib
import secrets
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Token, now
from backend.errors import TokenExists, UnknownToken

Scope = Literal["read", "label", "admin"]
"""Each may do what those before it may: look; push items, ask, label; make projects and change them."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "nb_"  # so that scanners for leaked secrets can know one


def create(session: Session, name: str, scope: Scope, days: int | None = None) -> str:
    """A new token's secret, which nobody can be told again. Raises TokenExists."""
    if session.scalar(sa.select(Token.id).where(Token.name == name)) is not None:
        raise TokenExists(name=name)
    secret = f"{_PREFIX}{secrets.token_urlsafe(32)}"
    expires_at = None if days is None else now() + dt.timedelta(days=days)
    session.add(Token(name=name, digest=_digest(secret), scope=scope, expires_at=expires_at))
    session.flush()
    return secret


def tokens(session: Session) -> list[Token]:
    """All tokens by name, those revoked among them."""
    return list(session.scalars(sa.select(Token).order_by(Token.name)))


def revoke(session: Session, name: str) -> Token:
    """Let the token open nothing any more, from the next call on. Raises UnknownToken."""
    token = session.scalar(sa.select(Token).where(Token.name == name))
    if token is None:
        raise UnknownToken(name=name, known=", ".join(one.name for one in tokens(session)) or "none yet")
    token.revoked_at = token.revoked_at or now()
    return token


def find(session: Session, secret: str) -> Token | None:
    """The token with that secret, if it opens anything."""
    token = session.scalar(sa.select(Token).where(Token.digest == _digest(secret)))
    return token if token is not None and is_valid(token) else None


def is_valid(token: Token) -> bool:
    """Neither revoked nor expired."""
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now())


def exist(session: Session) -> bool:
    """Whether there is a token at all: then nobody calls the API without one, or without basic credentials."""
    return session.scalar(sa.select(sa.exists().where(Token.revoked_at.is_(None)))) or False


def allows(held: str, wanted: Scope) -> bool:
    """Whether a scope is enough."""
    return SCOPES.index(held) >= SCOPES.index(wanted) if held in SCOPES else False


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()

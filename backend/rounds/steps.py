"""A checkpointed step of a durable workflow: what passes is tried again, and what ends it is told in a sentence."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from dbos import DBOS

from backend.errors import NextbatchError

P = ParamSpec("P")
R = TypeVar("R")


def is_passing(failure: BaseException) -> bool:
    """Whether waiting may mend it: a service, a network or a database that is away."""
    if isinstance(failure, NextbatchError):
        return failure.is_passing
    return isinstance(failure, OSError | sa.exc.OperationalError)


def step(
    name: str, may_pass: Callable[[BaseException], bool] = is_passing
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A checkpointed step. What passes (a service that is away) is tried again for about two minutes."""
    return DBOS.step(
        name=name,
        retries_allowed=True,
        max_attempts=8,
        interval_seconds=1.0,
        backoff_rate=2.0,
        should_retry=may_pass,
    )


def reason_of(failure: Exception) -> str:
    """Why a workflow ended early, in a sentence."""
    attempts: list[Exception] | None = getattr(failure, "errors", None)  # DBOS keeps each attempt's error here
    if attempts:
        return reason_of(attempts[-1])
    return str(failure) if isinstance(failure, NextbatchError) else f"{type(failure).__name__}: {failure}"

"""Queries: a program asks for so many items to label, as with ALaaS (arXiv 2207.09109). Torch-free.

A query is a round with a strategy and a budget of its own: it lists, encodes, learns and chooses as every round does.
Its batch answers the caller; it is not published, takes nothing into the holdout, and keeps nothing from other queries.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.orm import Session

import strategies
from backend.database import Project, Round
from backend.errors import NoSuchStrategy
from backend.rounds.queue import request_query
from backend.settings import ProjectConfig

MOST_BUDGET = 100_000


@dataclass(frozen=True)
class Query:
    """So many items by this strategy, or by the project's own where none is named."""

    budget: int
    strategy: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, round_: Round) -> "Query | None":
        """What the round answers, if it answers a query."""
        return cls(**round_.query) if round_.query else None

    def applied(self, config: ProjectConfig) -> ProjectConfig:
        """The project's configuration as this query wants it."""
        batch = config.batch.model_copy(update={"size": self.budget, "holdout_share": 0.0, "first_holdout": 0})
        strategy = config.strategy
        if self.strategy is not None:
            strategy = strategy.model_copy(update={"name": self.strategy, "parameters": dict(self.parameters)})
        return config.model_copy(update={"batch": batch, "strategy": strategy})


def ask(session: Session, project: Project, query: Query) -> Round:
    """The round that will answer, enqueued in this transaction. Raises NoSuchStrategy, TooManyQueries.

    Parameters are checked by the worker, where strategies are imported: wrong ones fail the query with a reason.
    """
    check(query)
    return request_query(session, project.id, asdict(query))


def check(query: Query) -> None:
    """Raises NoSuchStrategy."""
    if query.strategy is not None and query.strategy not in strategies.names():
        raise NoSuchStrategy(name=query.strategy, known=", ".join(strategies.names()))

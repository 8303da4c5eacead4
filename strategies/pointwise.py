"""Strategies with a number for every item, whatever else is picked: those can be multiplied, divided and diluted."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strategies.contract import Cost, Fact, Request, Selection, Strategy, highest


@dataclass(frozen=True, eq=False)
class Scores:
    """A utility of every candidate, and how to explain it.

    utilities: (n,) floating. reason: a format string over `facts`, arrays (n,). parts: what the utility was made
    from; their sentences follow in brackets. propensities: (n,), a number, or NaN where it is not known.
    """

    utilities: NDArray[np.floating[Any]]
    reason: str
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    parts: tuple["Scores", ...] = ()
    propensities: ArrayLike = np.nan
    diagnostics: Mapping[str, Fact] = field(default_factory=dict)

    def explain(self, rows: NDArray[np.int64]) -> list[str]:
        """A sentence for each of these rows."""
        columns = {name: fact[rows].tolist() for name, fact in self.facts.items()}
        own = [self.reason.format(**{name: column[i] for name, column in columns.items()}) for i in range(len(rows))]
        if not self.parts:
            return own
        whys = zip(*(part.explain(rows) for part in self.parts), strict=True)
        return [f"{sentence} ({'; '.join(why)})" for sentence, why in zip(own, whys, strict=True)]

    def best(self, request: Request) -> Selection:
        """The `budget` highest; ties go to the lower id."""
        rows = highest(np.asarray(self.utilities, dtype=np.float64), request.ids, request.budget)
        return Selection(
            ids=request.ids[rows],
            utilities=self.utilities[rows].astype(np.float64),
            propensities=np.broadcast_to(np.asarray(self.propensities, dtype=np.float64), len(request.ids))[rows],
            reasons=tuple(self.explain(rows)),
            diagnostics=self.diagnostics,
        )


class Pointwise(Strategy):
    """Picks the highest of the numbers that `score` gives; ties go to the lower id."""

    cost = Cost.POINTWISE
    lowest: ClassVar[float] = 0.0
    """The utility of an item that is of no use at all; minus infinity where there is no such number."""

    @abstractmethod
    def score(self, request: Request) -> Scores:
        """The utility of every candidate of a pool that `run` has put in order."""

    def select(self, request: Request) -> Selection:
        return self.score(request).best(request)

    def worth(self, utilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(n,) utilities as amounts from zero up, that can be divided and multiplied: counted from `lowest`, or from
        the pool's own lowest where there is none."""
        amounts = utilities.astype(np.float64)
        lowest = self.lowest if np.isfinite(self.lowest) else amounts.min(initial=np.inf)
        worth: NDArray[np.float64] = np.maximum(amounts - lowest, 0)
        return worth

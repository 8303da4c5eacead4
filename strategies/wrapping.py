"""Strategies made of others: what a wrapper is, and how it names what it wraps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Cost, Fact, Request, Selection, Strategy, parameters
from strategies.errors import WrongValue
from strategies.pointwise import Pointwise, Scores
from strategies.registry import create
from strategies.running import restrict, run

_COSTS = list(Cost)


class Part(NamedTuple):
    """Another strategy: a name, {name: …, parameters: {…}} as YAML has it, or the strategy itself."""

    default: str
    rule: str = "a strategy's name, or a mapping of name and parameters"

    def allow(self, value: object) -> bool:
        if isinstance(value, Mapping):
            given = value.get("parameters") or {}
            named = isinstance(value.get("name"), str) and set(value) <= {"name", "parameters"}
            return named and isinstance(given, Mapping) and all(isinstance(key, str) for key in given)
        return isinstance(value, str | Strategy)


def part(default: str) -> Strategy:
    """Declare a parameter of a wrapper that is another strategy, by name."""
    return cast(Strategy, field(default=default, metadata={"values": Part(default)}))


@dataclass(frozen=True)
class Wrapper(Strategy):
    """A strategy made of another one, `of`, or of several. Its inputs are its own and theirs.

    Run a part with ``run(self.of, request)``, which hides from it what it does not declare.
    """

    of: Strategy = part("margin")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole: dict[str, Any] = {name: getattr(type(self), name) for name in ("needs", "uses", "tasks", "cost")}
        for name, values in parameters(type(self)).items():
            if not isinstance(values, Part):
                continue
            made = _made(getattr(self, name))
            object.__setattr__(self, name, made)
            whole["needs"] |= made.needs
            whole["uses"] |= made.uses
            whole["tasks"] &= made.tasks
            whole["cost"] = max(whole["cost"], made.cost, key=_COSTS.index)
        for name, value in whole.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Blend(Wrapper, Pointwise):
    """A wrapper that makes a number of each item from the numbers of its parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in parameters(type(self)):
            made = getattr(self, name)
            if isinstance(made, Strategy) and not isinstance(made, Pointwise):
                rule = "a strategy that scores each item by itself, such as margin or bald"
                raise WrongValue(name=self.name, parameter=name, rule=rule, value=made.name)

    def scores(self, made: Strategy, request: Request) -> tuple[Scores, NDArray[np.float64]]:
        """What a part says of every item, and its utilities as amounts from zero up."""
        assert isinstance(made, Pointwise)
        scores = made.score(restrict(made, request, np.arange(len(request.ids))))
        return scores, made.worth(scores.utilities)


def _made(value: Any) -> Strategy:
    if isinstance(value, Strategy):
        return value
    if isinstance(value, str):
        return create(value)
    return create(value["name"], **(value.get("parameters") or {}))


def ranking(wrapper: Wrapper, request: Request, depth: int) -> tuple[Selection, NDArray[np.int64]]:
    """What `of` would pick if the batch were `depth` times as large, and the row of each pick."""
    longer = min(len(request.ids), depth * request.budget)
    ranked = run(wrapper.of, replace(request, budget=longer))
    return ranked, np.searchsorted(request.ids, ranked.ids)


def narrowed(ranked: Selection, kept: NDArray[np.int64], budget: int) -> Selection:
    """The picks at the places `kept`, ascending, of a longer ranking; where they are too few, the others follow in
    their order. The chance that an item was picked is no longer known."""
    kept = kept[:budget]
    rest = np.setdiff1d(np.arange(len(ranked)), kept)[: budget - len(kept)]
    order = np.concatenate([kept, rest])
    return Selection(
        ids=ranked.ids[order],
        utilities=ranked.utilities[order],
        propensities=np.full(len(order), np.nan),
        reasons=tuple(ranked.reasons[place] for place in order),
        diagnostics={**inherited(ranked), "looked_at": len(ranked), "filled_up": len(rest)},
    )


def inherited(selection: Selection) -> dict[str, Fact]:
    """A part's diagnostics under ``of.…``, so that they do not pass for the wrapper's; its policy is the policy."""
    facts: dict[str, Fact] = {f"of.{name}": fact for name, fact in selection.diagnostics.items()}
    if "policy" in selection.diagnostics:
        facts["policy"] = selection.diagnostics["policy"]
    return facts

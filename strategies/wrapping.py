"""Strategies made of others: what a wrapper is, and how it names what it wraps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from strategies.contract import Cost, Fact, Selection, Strategy, parameters
from strategies.errors import WrongValue
from strategies.pointwise import Pointwise
from strategies.registry import create

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

    def pointwise(self, name: str = "of") -> Pointwise:
        """A part that scores every item. Raises WrongValue where it does not."""
        made = getattr(self, name)
        if not isinstance(made, Pointwise):
            rule = "a strategy that scores each item by itself, such as margin or bald"
            raise WrongValue(name=self.name, parameter=name, rule=rule, value=made.name)
        return made


def _made(value: Any) -> Strategy:
    if isinstance(value, Strategy):
        return value
    if isinstance(value, str):
        return create(value)
    return create(value["name"], **(value.get("parameters") or {}))


def inherited(selection: Selection) -> dict[str, Fact]:
    """A part's diagnostics under ``of.…``, so that they do not pass for the wrapper's; its policy is the policy."""
    facts: dict[str, Fact] = {f"of.{name}": fact for name, fact in selection.diagnostics.items()}
    if "policy" in selection.diagnostics:
        facts["policy"] = selection.diagnostics["policy"]
    return facts

"""What the value of a strategy's parameter may be."""

from dataclasses import field
from typing import Any, NamedTuple, Protocol


class Values(Protocol):
    """The values of one parameter: the default, whether a value is among them, and the rule as people read it."""

    @property
    def default(self) -> Any: ...
    @property
    def rule(self) -> str: ...
    def allow(self, value: object) -> bool: ...


class Range(NamedTuple):
    """Numbers, both ends included; whole ones where the default is whole. bool is no number here, nan is not in it."""

    default: float
    low: float
    high: float

    @property
    def rule(self) -> str:
        kind = "a number" if isinstance(self.default, float) else "a whole number"
        return f"{kind} from {self.low} to {self.high}"

    def allow(self, value: object) -> bool:
        kinds = (int, float) if isinstance(self.default, float) else (type(self.default),)
        return type(value) in kinds and isinstance(value, int | float) and self.low <= value <= self.high


class Choice(NamedTuple):
    """One of some words."""

    default: str
    choices: tuple[str, ...]

    @property
    def rule(self) -> str:
        return "one of " + ", ".join(self.choices)

    def allow(self, value: object) -> bool:
        return isinstance(value, str) and value in self.choices


def choice(default: str, *others: str) -> str:
    """Declare a parameter of a strategy that is one of some words, the first being its default."""
    declared: str = field(default=default, metadata={"values": Choice(default, (default, *others))})
    return declared

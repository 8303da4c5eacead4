"""What people are asked about an item, and how an answer is written down: one text, a *label*, of whatever kind it is.

Tables, snapshots and counts hold labels and need not know the kind; who has to know asks the question.
"""

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from strategies import Task


@dataclass(frozen=True)
class Question(ABC):
    """A question about an item, answered with `choices`."""

    task: ClassVar[Task]
    is_named: ClassVar[bool] = True
    """Whether labels are made of names, so that two of them are the same or not."""

    choices: tuple[str, ...]

    @abstractmethod
    def label(self, given: Sequence[Any]) -> str | None:
        """The label of an answer that gave these values; None where that is no answer to this question."""

    def values(self, label: str) -> list[Any]:
        """What `label` makes a label of."""
        return list(self.names(label))

    @abstractmethod
    def names(self, label: str) -> tuple[str, ...]:
        """The names that a label holds, whether or not they are choices (any more)."""

    @abstractmethod
    def knows(self, label: str) -> bool:
        """Whether `label` answers the question as it is asked now."""

    def agreed(self, labels: Sequence[str]) -> tuple[str, list[int]]:
        """What people's labels of one item, at least one, the oldest first, come to, and which of them make it so.

        What most of them say, the latest among equals.
        """
        counts = Counter(labels)
        most = max(counts.values())
        found = next(label for label in reversed(labels) if counts[label] == most)
        return found, [at for at, label in enumerate(labels) if label == found]


@dataclass(frozen=True)
class OneOf(Question):
    """Exactly one of the choices. The label is its name."""

    task = Task.CLASSIFICATION

    def label(self, given: Sequence[Any]) -> str | None:
        return given[0] if len(given) == 1 and given[0] in self.choices else None

    def names(self, label: str) -> tuple[str, ...]:
        return (label,)

    def knows(self, label: str) -> bool:
        return label in self.choices


@dataclass(frozen=True)
class AnyOf(Question):
    """Any number of the choices, none included. The label is the sorted names as a JSON list: equal sets are equal.

    A label from a time when the question had one answer is the set of that name.
    """

    task = Task.MULTI_LABEL

    def label(self, given: Sequence[Any]) -> str | None:
        return set_label(given) if all(name in self.choices for name in given) else None

    def names(self, label: str) -> tuple[str, ...]:
        return names_in(label)

    def knows(self, label: str) -> bool:
        return set(names_in(label)) <= set(self.choices)

    def agreed(self, labels: Sequence[str]) -> tuple[str, list[int]]:
        """The same name by name, so all of them make it so: the names in most of the labels; of half, the latest's."""
        if len(set(labels)) == 1:
            return labels[0], list(range(len(labels)))
        counts = Counter(name for label in labels for name in set(names_in(label)))
        latest = names_in(labels[-1])
        found = set_label(name for name, count in counts.items() if 2 * count + (name in latest) > len(labels))
        return found, list(range(len(labels)))


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high`; `step` apart from `low` on, or any where it is 0."""

    low: float = -math.inf
    high: float = math.inf
    step: float = 0.0

    def nearest(self, number: float) -> float:
        """The number of the scale that is nearest."""
        if self.step:
            first = self.low if abs(self.low) < _FAR else 0.0
            number = first + round((number - first) / self.step) * self.step
        return min(max(number, self.low), self.high)


ANY = Scale()
_FAR = 1e30  # beyond, a number is no end that somebody set


@dataclass(frozen=True)
class HowMuch(Question):
    """A number. The label is the shortest text that reads as the same one; 3 and 3.0 are the same."""

    task = Task.REGRESSION
    is_named = False

    scale: Scale = ANY

    def label(self, given: Sequence[Any]) -> str | None:
        if len(given) != 1 or isinstance(given[0], bool) or not isinstance(given[0], int | float):
            return None
        return number_label(float(given[0])) if self._is_on(float(given[0])) else None

    def values(self, label: str) -> list[Any]:
        number = float(label)
        return [int(number) if number.is_integer() else number]

    def names(self, label: str) -> tuple[str, ...]:
        return () if _number(label) is not None else (label,)

    def knows(self, label: str) -> bool:
        number = _number(label)
        return number is not None and self._is_on(number)

    def _is_on(self, number: float) -> bool:
        return math.isfinite(number) and self.scale.low <= number <= self.scale.high


NUMBER = ("number", "deviation")
"""The `choices` of a question for a number: what a model says of an item."""

_KINDS: dict[Task, type[Question]] = {kind.task: kind for kind in (OneOf, AnyOf, HowMuch)}


def question(task: str, choices: Iterable[str]) -> Question:
    """The question of that kind. Raises ValueError for a kind that nextbatch does not learn."""
    kind = _KINDS.get(Task(task))
    if kind is None:
        raise ValueError(f"nextbatch does not learn {task}")
    return kind(tuple(choices))


def number_label(number: float) -> str:
    """The label of a number."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def set_label(names: Iterable[str]) -> str:
    """The label of a set of names."""
    return json.dumps(sorted(set(names)), ensure_ascii=False)


def names_in(label: str) -> tuple[str, ...]:
    """The names in a set's label; a text that is none stands for itself alone."""
    try:
        found = json.loads(label)
    except ValueError:
        return (label,)
    is_set = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_set else (label,)

"""What people are asked about an item, and how an answer is written down: one text, a *label*, of whatever kind it is.

Tables, snapshots and counts hold labels and need not know the kind; who has to know asks the question.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from strategies import Task


@dataclass(frozen=True)
class Question(ABC):
    """A question about an item, answered with `choices`."""

    task: ClassVar[Task]

    choices: tuple[str, ...]

    @abstractmethod
    def label(self, chosen: Sequence[str]) -> str | None:
        """The label of an answer that chose these; None where that is no answer to this question."""

    @abstractmethod
    def names(self, label: str) -> tuple[str, ...]:
        """The names that a label holds, whether or not they are choices (any more)."""

    @abstractmethod
    def knows(self, label: str) -> bool:
        """Whether `label` answers the question as it is asked now."""


@dataclass(frozen=True)
class OneOf(Question):
    """Exactly one of the choices. The label is its name."""

    task = Task.CLASSIFICATION

    def label(self, chosen: Sequence[str]) -> str | None:
        return chosen[0] if len(chosen) == 1 and chosen[0] in self.choices else None

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

    def label(self, chosen: Sequence[str]) -> str | None:
        return set_label(chosen) if set(chosen) <= set(self.choices) else None

    def names(self, label: str) -> tuple[str, ...]:
        return names_in(label)

    def knows(self, label: str) -> bool:
        return set(names_in(label)) <= set(self.choices)


_KINDS: dict[Task, type[Question]] = {kind.task: kind for kind in (OneOf, AnyOf)}


def question(task: str, choices: Iterable[str]) -> Question:
    """The question of that kind. Raises ValueError for a kind that nextbatch does not learn."""
    kind = _KINDS.get(Task(task))
    if kind is None:
        raise ValueError(f"nextbatch does not learn {task}")
    return kind(tuple(choices))


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

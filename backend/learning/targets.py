"""What a head is to learn, by the kind of question: how labels become numbers, how it is fitted, how it is judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.errors import HeadNotForTask
from backend.learning import evaluate, number_evaluate, sensitivity, set_evaluate
from backend.learning.analysis import Analysis, analyse
from backend.learning.candidates import Unlabelled
from backend.learning.heads import Head
from backend.learning.look import Look, look_at_numbers, look_at_sets
from backend.learning.number_heads import limits_of
from backend.learning.number_training import fit_numbers
from backend.learning.set_heads import SetHead
from backend.learning.set_training import fit_sets
from backend.learning.slices import Members
from backend.learning.training import METHODS, UNTUNED, FitReport, Tuned, fit
from backend.learning.tuning import Tuning, tune
from backend.questions import HowMuch, Question, Scale, question
from backend.settings import HeadKind, HeadSection
from strategies import Task

_FEWEST_NUMBERS = 3  # with fewer there is no error to estimate
Source = Literal["holdout", "cross-validation"]


class Measured(Protocol):
    """An evaluation, of whatever measures."""

    def to_json(self) -> str: ...


@dataclass(frozen=True)
class Target(ABC):
    """What a head learns of labels that answer `question`. Arrays of truth are what `encode` makes of l labels."""

    is_helped: ClassVar[bool]
    """Whether a fit can learn from the pool's neighbour graph."""

    question: Question

    def check(self, section: HeadSection) -> None:  # noqa: B027 - most kinds take every configuration
        """Raises HeadNotForTask where the configuration asks for a head that does not learn this."""

    def record(self) -> dict[str, Any]:
        """What a version's lineage must keep so that `target_from` makes this again."""
        return {"task": str(self.question.task)}

    @abstractmethod
    def encode(self, labels: Sequence[str]) -> NDArray[Any]:
        """The truth of labels that the question knows, along the first axis."""

    @abstractmethod
    def is_enough(self, labels: Sequence[str]) -> bool:
        """Whether there is something to tell apart."""

    @abstractmethod
    def tuned(
        self, x: NDArray[Any], truth: NDArray[Any], section: HeadSection, seed: int, familiar: NDArray[np.bool_]
    ) -> Tuning | None:
        """Hyperparameters looked for within the seconds that the configuration gives."""

    @abstractmethod
    def fit(
        self,
        x: NDArray[Any],
        truth: NDArray[Any],
        lent: Unlabelled | None,
        *,
        seed: int,
        balanced: bool,
        kind: HeadKind,
        familiar: NDArray[np.bool_],
        tuned: Tuned = UNTUNED,
    ) -> FitReport:
        """A head for embeddings (l, d); the arguments are those of `training.fit`."""

    @abstractmethod
    def evaluate(self, head: Head, said: NDArray[Any], truth: NDArray[Any], source: Source) -> Measured:
        """Measure what a head says, (n, K), against the truth."""

    @abstractmethod
    def look(self, head: Head, said: NDArray[Any], truth: NDArray[Any], members: Sequence[Members], seed: int) -> Look:
        """Measure the same more closely, on each of `members` too."""

    @abstractmethod
    def change(
        self, name: str, head: Head, said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]
    ) -> sensitivity.Change:
        """What the change of that name did: what the head says of the changed items and of the plain ones."""

    @abstractmethod
    def is_worse(self, heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        """Whether the first head, a new one, is worse than the second by more than chance explains."""


class ClassTarget(Target):
    """One class of several: the truth is class indices (l,) int64."""

    is_helped = True

    def encode(self, labels: Sequence[str]) -> NDArray[np.int64]:
        place = {name: index for index, name in enumerate(self.question.choices)}
        return np.array([place[label] for label in labels], dtype=np.int64)

    def is_enough(self, labels: Sequence[str]) -> bool:
        return len(set(labels)) >= 2

    def tuned(
        self, x: NDArray[Any], truth: NDArray[Any], section: HeadSection, seed: int, familiar: NDArray[np.bool_]
    ) -> Tuning | None:
        if not section.tune_s:
            return None
        budget_s, trials = section.tune_s, section.tune_trials
        return tune(
            x, truth, self.question.choices, section.kind, budget_s=budget_s, trials=trials, seed=seed,
            balanced=section.balanced, familiar=familiar,
        )  # fmt: skip

    def fit(
        self,
        x: NDArray[Any],
        truth: NDArray[Any],
        lent: Unlabelled | None,
        *,
        seed: int,
        balanced: bool,
        kind: HeadKind,
        familiar: NDArray[np.bool_],
        tuned: Tuned = UNTUNED,
    ) -> FitReport:
        methods = METHODS[kind]
        classes = self.question.choices
        return fit(
            x, truth, classes, lent, seed=seed, balanced=balanced, methods=methods, familiar=familiar, tuned=tuned
        )

    def evaluate(self, _head: Head, said: NDArray[Any], truth: NDArray[Any], source: Source) -> evaluate.Evaluation:
        return evaluate.evaluate(said, truth, self.question.choices, source)

    def look(
        self, _head: Head, said: NDArray[Any], truth: NDArray[Any], members: Sequence[Members], seed: int
    ) -> Analysis:
        return analyse(said, truth, self.question.choices, members, seed=seed)

    def change(
        self, name: str, _head: Head, said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]
    ) -> sensitivity.Change:
        changed, plain = said
        is_kept = changed.argmax(axis=1) == plain.argmax(axis=1)
        return sensitivity.measure(name, is_kept, evaluate.compare(changed, plain, truth))

    def is_worse(self, _heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        return evaluate.is_worse(said[0], said[1], truth)


class LinearTarget(Target):
    """What one linear head learns from labels alone, its penalty found in every fit."""

    is_helped = False

    def check(self, section: HeadSection) -> None:
        if section.kind != "linear" or section.tune_s:
            asked = f"head.kind: {section.kind}" if section.kind != "linear" else "head.tune_s"
            mend = "Take head.kind: linear without head.tune_s; its penalty is cross-validated in every round."
            raise HeadNotForTask(asked=asked, task=self.question.task, mend=mend)

    def tuned(
        self, _x: NDArray[Any], _truth: NDArray[Any], _section: HeadSection, _seed: int, _familiar: NDArray[np.bool_]
    ) -> None:
        return None


class SetTarget(LinearTarget):
    """Any number of labels: the truth is which of the choices each item has, (l, K) bool."""

    def encode(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        return set_evaluate.membership([self.question.names(label) for label in labels], self.question.choices)

    def is_enough(self, labels: Sequence[str]) -> bool:
        return len({frozenset(self.question.names(label)) for label in labels}) >= 2

    def fit(
        self,
        x: NDArray[Any],
        truth: NDArray[Any],
        _lent: Unlabelled | None,
        *,
        seed: int,
        balanced: bool,
        kind: HeadKind,  # noqa: ARG002 - only linear ones pass `check`
        familiar: NDArray[np.bool_],
        tuned: Tuned = UNTUNED,  # noqa: ARG002
    ) -> FitReport:
        return fit_sets(x, truth, self.question.choices, seed=seed, balanced=balanced, familiar=familiar)

    def evaluate(
        self, head: Head, said: NDArray[Any], truth: NDArray[Any], source: Source
    ) -> set_evaluate.SetEvaluation:
        return set_evaluate.evaluate_sets(said, told(head, said), truth, self.question.choices, source)

    def look(self, head: Head, said: NDArray[Any], truth: NDArray[Any], members: Sequence[Members], _seed: int) -> Look:
        return look_at_sets(said, told(head, said), truth, self.question.choices, members)

    def change(
        self, name: str, head: Head, said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]
    ) -> sensitivity.Change:
        changed, plain = (told(head, one) for one in said)
        right = [(one == truth).all(axis=1) for one in (changed, plain)]
        return sensitivity.measure(name, (changed == plain).all(axis=1), evaluate.compare_right(right[0], right[1]))

    def is_worse(self, heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        return set_evaluate.is_worse(told(heads[0], said[0]), told(heads[1], said[1]), truth)


class NumberTarget(LinearTarget):
    """A number: the truth is (l,) float64, what is said numbers and their deviations (l, 2)."""

    def record(self) -> dict[str, Any]:
        return {**super().record(), "limits": limits_of(self._scale).tolist()}

    def encode(self, labels: Sequence[str]) -> NDArray[np.float64]:
        return np.array([float(label) for label in labels])

    def is_enough(self, labels: Sequence[str]) -> bool:
        return len(labels) >= _FEWEST_NUMBERS and len(set(map(float, labels))) >= 2

    def fit(
        self,
        x: NDArray[Any],
        truth: NDArray[Any],
        _lent: Unlabelled | None,
        *,
        seed: int,  # noqa: ARG002 - nothing is drawn
        balanced: bool,  # noqa: ARG002 - there are no classes
        kind: HeadKind,  # noqa: ARG002 - only linear ones pass `check`
        familiar: NDArray[np.bool_],
        tuned: Tuned = UNTUNED,  # noqa: ARG002
    ) -> FitReport:
        return fit_numbers(x, truth, self._scale, familiar=familiar)

    def evaluate(
        self, _head: Head, said: NDArray[Any], truth: NDArray[Any], source: Source
    ) -> number_evaluate.NumberEvaluation:
        return number_evaluate.evaluate_numbers(said, truth, source)

    def look(self, _head: Head, said: NDArray[Any], truth: NDArray[Any], members: Sequence[Members], seed: int) -> Look:
        return look_at_numbers(said, truth, members, seed)

    def change(
        self, name: str, _head: Head, said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]
    ) -> sensitivity.Change:
        changed, plain = said
        is_kept = number_evaluate.is_within(plain, changed[:, 0])
        return sensitivity.measure(name, is_kept, number_evaluate.compare_numbers(changed[:, 0], plain[:, 0], truth))

    def is_worse(self, _heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        return number_evaluate.is_worse(said[0][:, 0], said[1][:, 0], truth)

    @property
    def _scale(self) -> Scale:
        return self.question.scale if isinstance(self.question, HowMuch) else Scale()


def told(head: Head, said: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels, (n, K), a head of sets tells of items of which it says probabilities (n, K)."""
    assert isinstance(head, SetHead)
    return np.asarray(said >= head.thresholds)


_KINDS: dict[Task, type[Target]] = {
    Task.CLASSIFICATION: ClassTarget,
    Task.MULTI_LABEL: SetTarget,
    Task.REGRESSION: NumberTarget,
}


def target_of(question: Question) -> Target:
    """What answers to this question teach."""
    return _KINDS[question.task](question)


def target_from(lineage: Mapping[str, Any]) -> Target:
    """The target of a version with that lineage; from before it was kept, of classes."""
    asked = question(lineage.get("task", Task.CLASSIFICATION), lineage["classes"])
    if isinstance(asked, HowMuch):
        asked = replace(asked, scale=Scale(*lineage["limits"]))
    return target_of(asked)

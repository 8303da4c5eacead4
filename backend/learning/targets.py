"""What a head is to learn, by the kind of question: how labels become numbers, how it is fitted, how it is judged."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.errors import HeadNotForTask
from backend.learning import evaluate, set_evaluate
from backend.learning.candidates import Unlabelled
from backend.learning.heads import Head
from backend.learning.set_heads import SetHead
from backend.learning.set_training import fit_sets
from backend.learning.training import METHODS, UNTUNED, FitReport, Tuned, fit
from backend.learning.tuning import Tuning, tune
from backend.questions import Question
from backend.settings import HeadKind, HeadSection
from strategies import Task

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

    def is_worse(self, _heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        return evaluate.is_worse(said[0], said[1], truth)


class SetTarget(Target):
    """Any number of labels: the truth is which of the choices each item has, (l, K) bool."""

    is_helped = False

    def check(self, section: HeadSection) -> None:
        if section.kind != "linear" or section.tune_s:
            asked = f"head.kind: {section.kind}" if section.kind != "linear" else "head.tune_s"
            mend = "Take head.kind: linear without head.tune_s; its penalty is cross-validated in every round."
            raise HeadNotForTask(asked=asked, task=self.question.task, mend=mend)

    def encode(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        place = {name: index for index, name in enumerate(self.question.choices)}
        truth = np.zeros((len(labels), len(place)), dtype=bool)
        for row, label in enumerate(labels):
            truth[row, [place[name] for name in self.question.names(label)]] = True
        return truth

    def is_enough(self, labels: Sequence[str]) -> bool:
        return len({frozenset(self.question.names(label)) for label in labels}) >= 2

    def tuned(
        self, _x: NDArray[Any], _truth: NDArray[Any], _section: HeadSection, _seed: int, _familiar: NDArray[np.bool_]
    ) -> None:
        return None

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

    def is_worse(self, heads: tuple[Head, Head], said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[Any]) -> bool:
        return set_evaluate.is_worse(told(heads[0], said[0]), told(heads[1], said[1]), truth)


def told(head: Head, said: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels, (n, K), a head of sets tells of items of which it says probabilities (n, K)."""
    assert isinstance(head, SetHead)
    return np.asarray(said >= head.thresholds)


_KINDS: dict[Task, type[Target]] = {Task.CLASSIFICATION: ClassTarget, Task.MULTI_LABEL: SetTarget}


def target_of(question: Question) -> Target:
    """What answers to this question teach."""
    return _KINDS[question.task](question)

"""A batch of labels to check: items whose label the model confidently contradicts, published like any other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Item, reading
from backend.errors import NothingToLookFor
from backend.learning.committee import held_out
from backend.learning.heads import Head
from backend.learning.number_training import fit_numbers
from backend.learning.quality import number_suspects, set_suspects, suspects
from backend.learning.set_training import held_out_sets
from backend.learning.targets import target_of
from backend.pool.catalog import Labelled
from backend.questions import ANY, number_label, question
from backend.rounds.encoding import Embeddings
from strategies import Task

STRATEGY = "check_labels"
FEWEST = 20


@dataclass(frozen=True)
class Doubted:
    """A labelled item whose label is probably wrong: how believable it is, in [0, 1], and what people are told."""

    item: Labelled
    belief: float
    reason: str


@dataclass(frozen=True, eq=False)
class _Case:
    """Embeddings (l, d) of what is trained on and (h, d) of the holdout, with the truth (l + h, …) of both."""

    head: Head
    train: NDArray[Any]
    holdout: NDArray[Any]
    truth: NDArray[Any]
    penalty: float
    seed: int

    def all_of(self, train: NDArray[np.float32], judge: Head) -> NDArray[np.float32]:
        """What is said of the training items, and of the holdout by `judge`, which is not fitted to any of it."""
        return np.concatenate([train, judge.predict(self.holdout)])


def find_suspects(
    known: Sequence[Labelled], head: Head | None, embeddings: Embeddings, penalty: float, seed: int
) -> list[Doubted]:
    """Labelled items that are probably labelled wrong, the least believed label first.

    Items that are trained on are judged by heads that were not fitted to them, and so is the holdout. Raises
    NothingToLookFor without a model, or below 20 labels.
    """
    if head is None:
        raise NothingToLookFor(problem="there is no model yet, which could contradict a label")
    target = target_of(question(head.task, head.classes))
    usable = [row for row in known if target.question.knows(row.label)]
    is_there = embeddings.store.locate([row.content_hash for row in usable]) >= 0
    usable = [row for row, there in zip(usable, is_there, strict=True) if there]
    x = embeddings.gather([row.content_hash for row in usable])
    is_whole, is_held = np.isfinite(x).all(axis=1), np.array([row.is_holdout for row in usable], dtype=bool)
    train, holdout = np.flatnonzero(is_whole & ~is_held), np.flatnonzero(is_whole & is_held)
    if len(train) < FEWEST:
        raise NothingToLookFor(problem=f"there are {len(train)} labels to judge, and it takes {FEWEST}")
    ordered = [usable[at] for at in np.concatenate([train, holdout])]
    truth = target.encode([row.label for row in ordered])
    found = _JUDGES[head.task](_Case(head, x[train], x[holdout], truth, penalty, seed))
    return [Doubted(ordered[row], belief, reason) for row, belief, reason in found]


def with_tasks(found: Sequence[Doubted]) -> list[Doubted]:
    """Those that Label Studio still has a task of."""
    ids = [one.item.item_id for one in found]
    with reading() as session:
        there = set(session.scalars(sa.select(Item.id).where(Item.id.in_(ids), Item.task_id.is_not(None))))
    return [one for one in found if one.item.item_id in there]


def _classes(case: _Case) -> list[tuple[int, float, str]]:
    names = case.head.classes
    unseen = held_out(case.head, case.train, case.truth[: len(case.train)], case.penalty, case.seed)
    return [
        (
            one.row,
            one.self_confidence,
            f"labelled {names[one.given]!r}; a model that has not seen this label says {names[one.said]!r} "
            f"({one.said_probability:.0%}; the label {one.self_confidence:.0%})",
        )
        for one in suspects(case.all_of(unseen, case.head), case.truth)
    ]


def _sets(case: _Case) -> list[tuple[int, float, str]]:
    names = case.head.classes
    unseen = held_out_sets(case.head, case.train, case.truth[: len(case.train)], case.penalty, case.seed)
    found = []
    for one in set_suspects(case.all_of(unseen, case.head), case.truth):
        parts = (("misses", one.missing), ("doubts", one.surplus))
        told = [
            f"{verb} {', '.join(f'{names[label]!r} ({chance:.0%})' for label, chance in labels)}"
            for verb, labels in parts
            if labels
        ]
        given = ", ".join(repr(names[int(at)]) for at in np.flatnonzero(case.truth[one.row])) or "with none"
        reason = f"labelled {given}; a model that has not seen this label {' and '.join(told)}"
        found.append((one.row, one.self_confidence, reason))
    return found


def _numbers(case: _Case) -> list[tuple[int, float, str]]:
    report = fit_numbers(case.train, case.truth[: len(case.train)], ANY)
    assert report.out_of_fold is not None  # of a number, every label's own fit without it is known
    said = case.all_of(report.out_of_fold.probabilities, report.head)
    return [
        (
            one.row,
            one.p,
            f"labelled {number_label(one.given)}; a model that has not seen this label says {one.said:.4g}, give or "
            f"take {one.deviation:.2g} (p {one.p:.1g} by chance)",
        )
        for one in number_suspects(said, case.truth)
    ]


_JUDGES: dict[Task, Callable[[_Case], list[tuple[int, float, str]]]] = {
    Task.CLASSIFICATION: _classes,
    Task.MULTI_LABEL: _sets,
    Task.REGRESSION: _numbers,
}

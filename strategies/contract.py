"""What a strategy is, what it is asked, and what it answers."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strategies.errors import BadRequest, BadSelection, WrongValue
from strategies.values import Range, Values

Number = TypeVar("Number", int, float)
Fact = str | int | float
"""What a diagnostic may be: something that prints and survives JSON."""


class Needs(enum.Flag):
    """The inputs a strategy declares. What it does not declare, it does not get to see."""

    NOTHING = 0
    PROBABILITIES = enum.auto()
    LOGITS = enum.auto()
    EMBEDDINGS = enum.auto()
    SAMPLES = enum.auto()
    LABELLED = enum.auto()
    LINEAR_HEAD = enum.auto()
    COSTS = enum.auto()
    GROUPS = enum.auto()
    TARGETS = enum.auto()
    VOTES = enum.auto()
    DEVIATIONS = enum.auto()


class Task(enum.StrEnum):
    """The kinds of question that people answer about an item."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    TAGGING = "tagging"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"


class Cost(enum.Enum):
    """How the work grows, for a pool of n and a batch of b."""

    POINTWISE = "one pass over the pool's probabilities"
    SHORTLIST = "one pass, then work on some thousand items"
    GREEDY = "passes over the pool's embeddings, in number growing with b"


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A pool of n candidates and how many of them to pick. Arrays are aligned with `ids` and are never written.

    ids: (n,) unicode or int64, unique. Sorted ids save `run` a copy of the arrays.
    budget: how many to pick; the answer has min(budget, usable items) picks.
    seed: randomness is keyed by (seed, item id), so the pool's order cannot matter.
    classes: K, or 0 where unknown. task: what kind of answers people give.
    probabilities: (n, K) float32, rows sum to one; in a multi-label task each column is a label's own.
    logits: (n, K) float32. deviations: (n,) float32, above zero, of a predicted number.
    embeddings: (n, d) float16 or float32, may be a read-only memory map.
    samples: (T, n, K) float32, probabilities of T plausible heads.
    head_weights: (d, K) and head_bias: (K,), float32, with ``embeddings @ head_weights + head_bias`` the logits.
    costs: (n,) above zero, what a label takes, in any one unit. groups: (n,) integers, say of a camera or a source.
    targets: (t, d), embeddings of what to look for the like of. votes: (n, A) integers, the class that each of A
    annotators gave a candidate, -1 where none: with them, items that have labels already may be candidates too.
    labelled_embeddings: (l, d); labelled_classes: (l,) int64, below K.
    excluded: ids that must not be picked: locked, in flight, skipped.
    """

    ids: NDArray[Any]
    budget: int
    seed: int = 0
    classes: int = 0
    task: Task = Task.CLASSIFICATION
    probabilities: NDArray[np.floating[Any]] | None = None
    logits: NDArray[np.floating[Any]] | None = None
    embeddings: NDArray[np.floating[Any]] | None = None
    samples: NDArray[np.floating[Any]] | None = None
    head_weights: NDArray[np.floating[Any]] | None = None
    head_bias: NDArray[np.floating[Any]] | None = None
    costs: NDArray[np.floating[Any]] | None = None
    groups: NDArray[np.integer[Any]] | None = None
    targets: NDArray[np.floating[Any]] | None = None
    votes: NDArray[np.signedinteger[Any]] | None = None
    deviations: NDArray[np.floating[Any]] | None = None
    labelled_embeddings: NDArray[np.floating[Any]] | None = None
    labelled_classes: NDArray[np.integer[Any]] | None = None
    excluded: frozenset[Any] = frozenset()

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.ids.dtype.kind not in "iU":
            raise BadRequest(problem=f"ids must be a vector of int64 or unicode, not {self.ids.dtype}{self.ids.shape}.")
        if self.budget < 0:
            raise BadRequest(problem=f"the budget is {self.budget}, below zero.")
        for name, rows_axis, rank, kinds in (
            ("probabilities", 0, 2, "f"),
            ("logits", 0, 2, "f"),
            ("embeddings", 0, 2, "f"),
            ("samples", 1, 3, "f"),
            ("costs", 0, 1, "f"),
            ("groups", 0, 1, "iu"),
            ("votes", 0, 2, "i"),
            ("deviations", 0, 1, "f"),
        ):
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != rank or array.shape[rows_axis] != len(self.ids) or array.dtype.kind not in kinds:
                raise BadRequest(
                    problem=f"{name} are {array.dtype}{array.shape}, but there are {len(self.ids)} candidates."
                )
            if name in ("probabilities", "logits", "samples") and self.classes and array.shape[-1] != self.classes:
                raise BadRequest(problem=f"{name} have {array.shape[-1]} columns for {self.classes} classes.")
        if self.samples is not None and len(self.samples) == 0:
            raise BadRequest(problem="samples are of no head.")
        if self.costs is not None and (self.costs <= 0).any():
            raise BadRequest(problem=f"a label of {self.ids[self.costs <= 0][0]!s} costs nothing, or less.")
        self._check_labelled()

    def _check_labelled(self) -> None:
        embeddings, classes = self.labelled_embeddings, self.labelled_classes
        if embeddings is not None:
            if embeddings.ndim != 2 or (
                self.embeddings is not None and embeddings.shape[1] != self.embeddings.shape[1]
            ):
                raise BadRequest(problem=f"labelled_embeddings {embeddings.shape} do not fit the embeddings.")
            if classes is not None and len(classes) != len(embeddings):
                raise BadRequest(problem=f"{len(embeddings)} labelled embeddings, but {len(classes)} labelled classes.")
        known = self.classes or (0 if self.probabilities is None else self.probabilities.shape[1])
        if classes is not None and len(classes):
            if classes.dtype.kind not in "iu":
                raise BadRequest(problem=f"labelled_classes are {classes.dtype}, not integers.")
            low, high = int(classes.min()), int(classes.max())
            if low < 0 or (known and high >= known):
                raise BadRequest(problem=f"labelled_classes span {low} to {high} for {known} classes.")

    @property
    def labels(self) -> int:
        """How many labelled items there are."""
        known = self.labelled_classes if self.labelled_classes is not None else self.labelled_embeddings
        return 0 if known is None else len(known)

    def take_highest(
        self, utilities: ArrayLike, *, reason: str, propensity: float = np.nan, **facts: NDArray[Any]
    ) -> Selection:
        """The `budget` rows of highest utility (n,); ties go to the lower id; NaN comes last.

        `reason` is a format string over `facts`, arrays (n,) aligned with the pool.
        """
        utilities = np.asarray(utilities, dtype=np.float64)
        rows = highest(utilities, self.ids, self.budget)
        picked = {name: fact[rows] for name, fact in facts.items()}
        return self._selection(rows, utilities[rows], reason, propensity, {}, picked)

    def take(
        self,
        rows: ArrayLike,
        utilities: ArrayLike,
        *,
        reason: str,
        propensity: ArrayLike = np.nan,
        diagnostics: Mapping[str, Fact] | None = None,
        **facts: NDArray[Any],
    ) -> Selection:
        """These rows in this order. What is given of them is aligned with the picks, not with the pool."""
        return self._selection(
            np.asarray(rows, dtype=np.int64), utilities, reason, propensity, diagnostics or {}, facts
        )

    def _selection(
        self,
        rows: NDArray[np.int64],
        utilities: ArrayLike,
        reason: str,
        propensity: ArrayLike,
        diagnostics: Mapping[str, Fact],
        facts: Mapping[str, NDArray[Any]],
    ) -> Selection:
        columns = {name: np.asarray(fact).tolist() for name, fact in facts.items()}
        reasons = tuple(reason.format(**{name: c[i] for name, c in columns.items()}) for i in range(len(rows)))
        return Selection(
            ids=self.ids[rows],
            utilities=np.asarray(utilities, dtype=np.float64),
            propensities=np.full(len(rows), propensity),
            reasons=reasons,
            diagnostics=dict(diagnostics),
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """The picks, the most wanted first.

    ids: (k,). utilities: (k,) float64, in the strategy's own unit and not always falling.
    propensities: (k,) float64, the chance that the item was picked; NaN where the pick is deterministic.
    reasons: k sentences for people. diagnostics: what the strategy did and what it lost by sampling.
    """

    ids: NDArray[Any]
    utilities: NDArray[np.float64]
    propensities: NDArray[np.float64]
    reasons: tuple[str, ...]
    diagnostics: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.utilities) == len(self.propensities) == len(self.reasons):
            raise BadSelection(name="?", problem="ids, utilities, propensities and reasons differ in length.")

    def __len__(self) -> int:
        return len(self.ids)


class Strategy(ABC):
    """Picks items. Pure: no I/O, no state between calls. Parameters are the fields of the frozen dataclass it is."""

    name: ClassVar[str] = "unregistered"
    needs: ClassVar[Needs] = Needs.NOTHING
    """Inputs without which it cannot run; a row with NaN or infinity in one of them is dropped by `run`."""
    uses: ClassVar[Needs] = Needs.NOTHING
    """Inputs that it takes where they are there."""
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CLASSIFICATION})
    cost: ClassVar[Cost]

    def __post_init__(self) -> None:
        for name, values in parameters(type(self)).items():
            value = getattr(self, name)
            if not values.allow(value):
                raise WrongValue(name=self.name, parameter=name, rule=values.rule, value=value)

    @abstractmethod
    def select(self, request: Request) -> Selection:
        """Pick ``min(budget, n)`` items of a pool that `run` has put in order; call `run`, not this."""


def parameter(default: Number, low: Number, high: Number) -> Number:
    """Declare a number that a strategy takes: its default and the ends, both included, of what makes sense."""
    declared: Number = field(default=default, metadata={"values": Range(default, low, high)})
    return declared


def parameters(strategy: type[Strategy]) -> dict[str, Values]:
    """The parameters of a strategy's class, name to values; those of a number unpack as default, lowest, highest."""
    if not is_dataclass(strategy):
        return {}
    return {
        declared.name: declared.metadata["values"] for declared in fields(strategy) if "values" in declared.metadata
    }


def highest(utilities: NDArray[np.float64], ids: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest utilities (n,), best first; ties go to the lower id; NaN comes last."""
    utilities = np.where(np.isnan(utilities), -np.inf, utilities)
    count = min(count, len(utilities))
    if count == 0:
        return np.empty(0, dtype=np.int64)
    bar = np.partition(utilities, len(utilities) - count)[len(utilities) - count]
    above, level = np.flatnonzero(utilities > bar), np.flatnonzero(utilities == bar)
    level = level[np.argsort(ids[level], kind="stable")][: count - len(above)]
    rows = np.concatenate([above, level])
    best: NDArray[np.int64] = rows[np.lexsort((ids[rows], -utilities[rows]))]
    return best

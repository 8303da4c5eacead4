"""A closer look at a version of whatever kind: what is kept of sets and of numbers, and how any of it is read again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from backend.learning.analysis import Analysis
from backend.learning.evaluate import Measured
from backend.learning.number_evaluate import evaluate_numbers
from backend.learning.sensitivity import Change
from backend.learning.set_evaluate import evaluate_sets, micro_f1
from backend.learning.slices import Members, NumberSlice, Slice, find_number_slices, find_slices


@dataclass(frozen=True)
class SetAnalysis:
    """A version that tells sets on ``labels`` items of the random holdout.

    ``slices`` come worst first, ``changes`` of the input as far as they were measured.
    """

    labels: int
    accuracy: Measured
    micro_f1: Measured
    macro_f1: Measured
    slices: tuple[Slice, ...] = ()
    changes: tuple[Change, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @property
    def measures(self) -> tuple[tuple[str, Measured], ...]:
        """The measures of all items, by title."""
        return ("accuracy", self.accuracy), ("micro F1", self.micro_f1), ("macro F1", self.macro_f1)


@dataclass(frozen=True)
class NumberAnalysis:
    """A version that says numbers on ``labels`` items of the random holdout.

    ``slices`` come worst first, ``changes`` of the input as far as they were measured.
    """

    labels: int
    mae: Measured
    rmse: Measured
    inside: Measured
    slices: tuple[NumberSlice, ...] = ()
    changes: tuple[Change, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @property
    def measures(self) -> tuple[tuple[str, Measured], ...]:
        """The measures of all items, by title."""
        return ("mean abs. error", self.mae), ("root mean square", self.rmse), ("within 95 %", self.inside)


Look = Analysis | SetAnalysis | NumberAnalysis

_SETS, _NUMBERS = TypeAdapter(SetAnalysis), TypeAdapter(NumberAnalysis)


def read(stored: Mapping[str, Any]) -> Look:
    """What `as_dict` of any of them wrote."""
    if "mae" in stored:
        return _NUMBERS.validate_python(stored)
    return _SETS.validate_python(stored) if "micro_f1" in stored else Analysis.read(stored)


def look_at_sets(
    probabilities: NDArray[Any],
    told: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    classes: tuple[str, ...],
    members: Sequence[Members],
) -> SetAnalysis:
    """Measure what is told of sets, as `evaluate_sets` does, all over and on each of `members`."""
    found = evaluate_sets(probabilities, told, truth, classes)
    return SetAnalysis(
        labels=found.labels,
        accuracy=Measured(found.accuracy, found.accuracy_interval),
        micro_f1=Measured(found.micro_f1, found.micro_f1_interval),
        macro_f1=Measured(found.macro_f1, found.macro_f1_interval),
        slices=find_slices((told == truth).all(axis=1), members, lambda rows: micro_f1(told[rows], truth[rows])),
    )


def look_at_numbers(
    said: NDArray[Any], truth: NDArray[np.float64], members: Sequence[Members], seed: int = 0
) -> NumberAnalysis:
    """Measure numbers and deviations (n, 2), as `evaluate_numbers` does, all over and on each of `members`."""
    found = evaluate_numbers(said, truth)
    return NumberAnalysis(
        labels=found.labels,
        mae=Measured(found.mae, found.mae_interval),
        rmse=Measured(found.rmse, found.rmse_interval),
        inside=Measured(found.inside, found.inside_interval),
        slices=find_number_slices(np.abs(said[:, 0].astype(np.float64) - truth), members, seed),
    )

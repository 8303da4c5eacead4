"""Where a model is worse than elsewhere: the holdout cut by whatever is known of its items, the worst slices first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

from backend.learning.evaluate import Interval, wilson

FEWEST = 10
MOST_KEPT = 30
FALSE_DISCOVERIES = 0.05
_MOST_VALUES = 100  # values of a field; more are an identifier's, or a number's, which is cut into quarters
_QUARTERS = 4


@dataclass(frozen=True, eq=False)
class Members:
    """The items, by their rows (m,), of which `field` is `value`."""

    field: str
    value: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """The ``items`` of which `field` is `value`, beside all the others.

    ``difference`` is its accuracy minus theirs, with a 95 % interval. ``p`` is the chance of so many errors or more if
    the slice were like the rest (Fisher's exact test), ``adjusted_p`` that after Benjamini and Hochberg's correction
    for all slices looked at. ``is_worse`` when that is at most 0.05: of the slices called so, one in twenty is not.
    """

    field: str
    value: str
    items: int
    accuracy: float
    interval: Interval
    difference: float
    difference_interval: Interval
    p: float
    adjusted_p: float
    is_worse: bool


def members_of(field: str, values: Sequence[Any]) -> list[Members]:
    """Cut items by one field, given its value of each, None where it has none.

    Numbers of more than eight different values are cut into four parts of equal size. A slice has ten items at least
    and leaves out ten; a field of more than a hundred values, such as an address, has none.
    """
    known = [(row, value) for row, value in enumerate(values) if isinstance(value, str | int | float)]
    numbers = [(row, float(value)) for row, value in known if isinstance(value, int | float) and np.isfinite(value)]
    if known and len(numbers) == len(known) and len({value for _, value in numbers}) > 2 * _QUARTERS:
        return _quarters(field, numbers, len(values))
    groups: dict[str, list[int]] = defaultdict(list)
    for row, value in known:
        groups[str(value)].append(row)
    return named_groups(field, groups, len(values)) if len(groups) <= _MOST_VALUES else []


def named_groups(field: str, groups: Mapping[str, Sequence[int]], total: int) -> list[Members]:
    """Groups by name of rows among `total`, which may overlap; those that are too small or nearly all are left out."""
    return [
        Members(field, name, np.array(rows, dtype=np.int64))
        for name, rows in sorted(groups.items())
        if FEWEST <= len(rows) <= total - FEWEST
    ]


def find_slices(correct: NDArray[np.bool_], members: Sequence[Members]) -> tuple[Slice, ...]:
    """Accuracy on each slice against the rest, the surest to be worse first; the thirty worst are kept.

    correct: which of the n items the model gets right.

    Fisher, *The logic of inductive inference*, JRSS 1935; Benjamini & Hochberg, JRSS B 1995; the interval of a
    difference is Newcombe's square-and-add, Statistics in Medicine 1998 (method 10 for two samples).
    """
    if not members:
        return ()
    n, errors = len(correct), int((~correct).sum())
    sizes = np.array([len(one.rows) for one in members])
    wrong = np.array([int((~correct[one.rows]).sum()) for one in members])
    p = np.minimum(1.0, hypergeom.sf(wrong - 1, n, errors, sizes))
    adjusted = false_discovery_control(p)
    found = []
    for at in np.argsort(p, kind="stable")[:MOST_KEPT]:
        size, right = int(sizes[at]), int(sizes[at] - wrong[at])
        rest, rest_right = n - size, n - errors - right
        interval, beside = wilson(right, size), wilson(rest_right, rest)
        accuracy, other = right / size, rest_right / rest
        low = accuracy - other - float(np.hypot(accuracy - interval.low, beside.high - other))
        high = accuracy - other + float(np.hypot(interval.high - accuracy, other - beside.low))
        found.append(
            Slice(
                field=members[at].field,
                value=members[at].value,
                items=size,
                accuracy=accuracy,
                interval=interval,
                difference=accuracy - other,
                difference_interval=Interval(low, high),
                p=float(p[at]),
                adjusted_p=float(adjusted[at]),
                is_worse=bool(adjusted[at] <= FALSE_DISCOVERIES),
            )
        )
    return tuple(found)


def _quarters(field: str, numbers: Sequence[tuple[int, float]], total: int) -> list[Members]:
    values = np.array([value for _, value in numbers])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _QUARTERS + 1)))
    groups: dict[str, list[int]] = {}
    for low, high in pairwise(edges):
        is_last = high == edges[-1]
        name = f"{low:g} to {high:g}"
        groups[name] = [row for row, value in numbers if low <= value < high or (is_last and value == high)]
    return named_groups(field, groups, total)

"""Where a model is worse than elsewhere: the holdout cut by whatever is known of its items, the worst slices first."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom, t

from backend.learning.evaluate import Interval, Measured, mean_error, wilson

FEWEST = 10
MOST_KEPT = 30
FALSE_DISCOVERIES = 0.05
_MOST_VALUES = 100  # values of a field; more are an identifier's, or a number's, which is cut into quarters
_QUARTERS = 4
_FEWEST_DRAWS, _DRAWS_EACH, _AT_ONCE = 2_000, 50, 500  # permutations: enough for one slice among all to be believed


@dataclass(frozen=True, eq=False)
class Members:
    """The items, by their rows (m,), of which `field` is `value`."""

    field: str
    value: str
    rows: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """The ``items`` of which `field` is `value`, beside all the others.

    ``difference`` is its measure minus theirs, with a 95 % interval. ``p`` is the chance of so much worse a measure if
    the slice were like the rest, ``adjusted_p`` that after Benjamini and Hochberg's correction for all slices looked
    at. ``is_worse`` when that is at most 0.05: of the slices called so, one in twenty is not.
    """

    field: str
    value: str
    items: int
    difference: float
    difference_interval: Interval
    p: float
    adjusted_p: float
    is_worse: bool


@dataclass(frozen=True, kw_only=True)
class Slice(_Cut):
    """By accuracy, and ``p`` is that of Fisher's exact test.

    Where items have several labels the accuracy is of whole sets, and ``micro_f1`` is known as well.
    """

    accuracy: float
    interval: Interval
    micro_f1: Measured | None = None

    @property
    def measures(self) -> tuple[tuple[str, Measured], ...]:
        """What is known of the slice, by title."""
        first = ("accuracy", Measured(self.accuracy, self.interval))
        return (first,) if self.micro_f1 is None else (first, ("micro F1", self.micro_f1))


@dataclass(frozen=True, kw_only=True)
class NumberSlice(_Cut):
    """Where labels are numbers: by the mean absolute error, of which less is better, and a permutation test of it."""

    mae: float
    interval: Interval

    @property
    def measures(self) -> tuple[tuple[str, Measured], ...]:
        """What is known of the slice, by title."""
        return (("mean abs. error", Measured(self.mae, self.interval)),)


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


def find_slices(
    correct: NDArray[np.bool_],
    members: Sequence[Members],
    micro_f1: Callable[[NDArray[np.int64]], Measured] | None = None,
) -> tuple[Slice, ...]:
    """Accuracy on each slice against the rest, the surest to be worse first; the thirty worst are kept.

    correct: which of the n items the model gets right; `micro_f1`, of these rows, is told of label sets.

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
                micro_f1=None if micro_f1 is None else micro_f1(members[at].rows),
            )
        )
    return tuple(found)


def find_number_slices(
    errors: NDArray[np.float64], members: Sequence[Members], seed: int = 0
) -> tuple[NumberSlice, ...]:
    """Mean absolute error on each slice against the rest, the surest to be worse first; the thirty worst are kept.

    errors: (n,) absolute ones. The test draws slices of the same size at random, because errors are skewed and slices
    small; all slices share the draws. O(draws · n), 50 draws a slice.

    Fisher, *The design of experiments*, 1935 (the permutation test); Phipson & Smyth, *Permutation p-values should
    never be zero*, 2010; Welch, *The generalization of Student's problem*, Biometrika 1947 (the difference's interval);
    Benjamini & Hochberg, JRSS B 1995.
    """
    if not members:
        return ()
    sizes = np.array([len(one.rows) for one in members])
    sums = np.array([errors[one.rows].sum() for one in members])
    p = _p_of_sums(errors, sizes, sums, np.random.default_rng(seed))
    adjusted = false_discovery_control(p)
    gaps = sums / sizes - (errors.sum() - sums) / (len(errors) - sizes)
    found = []
    for at in np.lexsort((-gaps, p))[:MOST_KEPT]:
        inside, mae = errors[members[at].rows], float(sums[at] / sizes[at])
        half, apart = mean_error(inside)[1], float(gaps[at])
        beside = _welch(inside, np.delete(errors, members[at].rows))
        found.append(
            NumberSlice(
                field=members[at].field,
                value=members[at].value,
                items=int(sizes[at]),
                mae=mae,
                interval=Interval(max(0.0, mae - half), mae + half),
                difference=apart,
                difference_interval=Interval(apart - beside, apart + beside),
                p=float(p[at]),
                adjusted_p=float(adjusted[at]),
                is_worse=bool(adjusted[at] <= FALSE_DISCOVERIES),
            )
        )
    return tuple(found)


def _p_of_sums(
    errors: NDArray[np.float64], sizes: NDArray[np.int64], sums: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """The chance that as many errors, drawn at random, have a sum as large; (slices,), none of them 0."""
    draws = max(_FEWEST_DRAWS, _DRAWS_EACH * len(sizes))
    most, reached = int(sizes.max()), np.ones(len(sizes))
    edge = sums - 1e-9 * max(float(errors.sum()), 1e-300)  # the same sum in another order
    for start in range(0, draws, _AT_ONCE):
        drawn = np.tile(errors, (min(_AT_ONCE, draws - start), 1))
        partial = np.cumsum(generator.permuted(drawn, axis=1)[:, :most], axis=1)
        reached += (partial[:, sizes - 1] >= edge).sum(axis=0)
    return reached / (draws + 1)


def _welch(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of the difference of two means."""
    first, second = mean_error(one)[0] ** 2, mean_error(other)[0] ** 2
    if not first + second:
        return 0.0
    freedom = (first + second) ** 2 / (first**2 / (len(one) - 1) + second**2 / (len(other) - 1))
    return float(np.sqrt(first + second) * t.ppf(0.975, freedom))


def _quarters(field: str, numbers: Sequence[tuple[int, float]], total: int) -> list[Members]:
    values = np.array([value for _, value in numbers])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _QUARTERS + 1)))
    groups: dict[str, list[int]] = {}
    for low, high in pairwise(edges):
        is_last = high == edges[-1]
        name = f"{low:g} to {high:g}"
        groups[name] = [row for row, value in numbers if low <= value < high or (is_last and value == high)]
    return named_groups(field, groups, total)

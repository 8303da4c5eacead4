"""The one way to run a strategy: what it needs is there, the pool is in order, and the answer keeps the contract."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Fact, Needs, Request, Selection, Strategy, Task
from strategies.errors import BadRequest, BadSelection, MissingInput, WrongTask
from strategies.registry import create, names

INPUTS = {
    Needs.PROBABILITIES: ("probabilities",),
    Needs.LOGITS: ("logits",),
    Needs.EMBEDDINGS: ("embeddings",),
    Needs.SAMPLES: ("samples",),
    Needs.LABELLED: ("labelled_embeddings", "labelled_classes"),
    Needs.LINEAR_HEAD: ("head_weights", "head_bias"),
    Needs.COSTS: ("costs",),
    Needs.GROUPS: ("groups",),
    Needs.TARGETS: ("targets",),
    Needs.VOTES: ("votes",),
    Needs.DEVIATIONS: ("deviations",),
}
"""Which fields of a Request each need stands for."""

WHOLE = Needs.LABELLED | Needs.LINEAR_HEAD | Needs.TARGETS
"""Needs whose arrays are not aligned with the pool."""

_BLOCK = 1 << 14
_SIGNLESS, _INFINITY = np.uint16(0x7FFF), np.uint16(0x7C00)


def run(strategy: Strategy, request: Request) -> Selection:
    """Let the strategy pick ``min(budget, usable items)`` items.

    Excluded items are taken out. A row with NaN or infinity in a needed array, or with probabilities that are all
    zero, is *dropped*: it is never picked, and `diagnostics` counts it. The strategy sees the rest sorted by id, so
    that the pool's order cannot matter, read-only, and only the inputs it declares. Where ids come sorted and nothing
    is taken out, no array is copied.

    Raises WrongTask, MissingInput, BadRequest, and BadSelection where the strategy's answer breaks the contract.
    """
    check_task(strategy, request.task)
    _require(strategy, request)
    pickable, counts = _pickable(strategy, request)
    pool = restrict(strategy, request, pickable)
    if pool.budget == 0 or len(pool.ids) == 0:
        return pool.take([], [], reason="", diagnostics={"strategy": strategy.name, **counts})
    selection = strategy.select(pool)
    _check(strategy, pool, selection)
    return replace(selection, diagnostics={**selection.diagnostics, "strategy": strategy.name, **counts})


def check_task(strategy: Strategy, task: Task) -> None:
    """Raises WrongTask, which lists the strategies that fit, where this one does not."""
    if task not in strategy.tasks:
        fitting = ", ".join(name for name in names() if task in create(name).tasks)
        raise WrongTask(name=strategy.name, task=task, fitting=fitting)


def _require(strategy: Strategy, request: Request) -> None:
    missing = [n for need in strategy.needs for n in INPUTS[need] if getattr(request, n) is None]
    if missing:
        needed = ", ".join(n for need in strategy.needs for n in INPUTS[need])
        raise MissingInput(name=strategy.name, missing=", ".join(missing), needs=needed)
    if Needs.LINEAR_HEAD in strategy.needs | strategy.uses:
        _check_head(request)
    if Needs.TARGETS in strategy.needs | strategy.uses:
        _check_targets(request)
    if Needs.VOTES in strategy.needs | strategy.uses:
        _check_votes(request)


def _check_targets(request: Request) -> None:
    targets, embeddings = request.targets, request.embeddings
    if targets is None:
        return
    if targets.ndim != 2 or (embeddings is not None and targets.shape[1] != embeddings.shape[1]):
        raise BadRequest(problem=f"targets {targets.shape} do not fit the embeddings.")
    if not np.isfinite(targets).all():
        raise BadRequest(problem="there is a target that is not finite.")


def _check_votes(request: Request) -> None:
    votes, known = request.votes, request.classes
    if request.probabilities is not None:
        known = request.probabilities.shape[1]
    if votes is not None and votes.size:
        low, high = int(votes.min()), int(votes.max())
        if low < -1 or (known and high >= known):
            raise BadRequest(problem=f"votes span {low} to {high} for {known} classes.")


def _check_head(request: Request) -> None:
    weights, bias, embeddings = request.head_weights, request.head_bias, request.embeddings
    if weights is None or bias is None:
        return
    columns = request.classes or weights.shape[-1]
    rows = weights.shape[0] if embeddings is None else embeddings.shape[1]
    if weights.shape != (rows, columns) or bias.shape != (columns,):
        fits = f"embeddings of {rows} dimensions and {columns} classes"
        raise BadRequest(problem=f"a head of weights {weights.shape} and bias {bias.shape} does not fit {fits}.")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise BadRequest(problem="the head has a weight that is not finite.")


def _pickable(strategy: Strategy, request: Request) -> tuple[NDArray[np.int64], dict[str, Fact]]:
    """Rows that may be picked, in the order of their ids, and how many were taken out why."""
    ids = request.ids
    barred = np.zeros(len(ids), dtype=bool)
    if request.excluded:
        kind: tuple[type, ...] = (str,) if ids.dtype.kind == "U" else (int, np.integer)
        strangers = [i for i in request.excluded if not isinstance(i, kind)]
        if strangers:
            raise BadRequest(problem=f"excluded holds {strangers[0]!r}, but the ids are {ids.dtype}.")
        barred[:] = np.fromiter((i in request.excluded for i in ids.tolist()), dtype=bool, count=len(ids))
    unusable = np.zeros(len(ids), dtype=bool)
    for need in strategy.needs & ~WHOLE:
        for name in INPUTS[need]:
            unusable |= ~_finite(getattr(request, name), axis=1 if name == "samples" else 0)
    is_multiple = request.task == Task.MULTI_LABEL
    if Needs.PROBABILITIES in strategy.needs and request.probabilities is not None and is_multiple:
        _check_chances(request.probabilities, request.ids, ~unusable)
    elif Needs.PROBABILITIES in strategy.needs and request.probabilities is not None:
        unusable |= _all_zero(request.probabilities, request.ids, ~unusable)
    if Needs.SAMPLES in strategy.needs and request.samples is not None:
        unusable |= _all_zero(request.samples[0], request.ids, ~unusable)  # one head shows whether they are logits
    counts: dict[str, Fact] = {"excluded": int(barred.sum()), "dropped": int((unusable & ~barred).sum())}
    rows = np.flatnonzero(~(barred | unusable))
    kept = ids[rows]
    if not np.all(kept[:-1] < kept[1:]):
        order = np.argsort(kept, kind="stable")
        ordered: NDArray[Any] = kept[order]
        twice = ordered[1:][ordered[:-1] == ordered[1:]]
        if len(twice):
            raise BadRequest(problem=f"the id {twice[0]!s} stands in the pool more than once.")
        return rows[order], counts
    return rows, counts


def restrict(strategy: Strategy, request: Request, rows: NDArray[np.int64]) -> Request:
    """The request with these candidates only, with the inputs that the strategy declares, read-only.

    Copies the rows of each array, unless `rows` are all of them in their order.
    """
    declared = {n for need in strategy.needs | strategy.uses for n in INPUTS[need]}
    unaligned = {n for need in WHOLE for n in INPUTS[need]}
    whole = len(rows) == len(request.ids) and bool(np.all(rows[:-1] < rows[1:]))
    fields: dict[str, Any] = {n: None for names in INPUTS.values() for n in names}
    for name in declared:
        array = getattr(request, name)
        if array is None or name in unaligned:
            fields[name] = None if array is None else _read_only(array)
        else:
            cut = array if whole else (array[:, rows] if name == "samples" else array[rows])
            fields[name] = _read_only(cut)
    budget = min(request.budget, len(rows))
    return replace(request, ids=_read_only(request.ids[rows]), budget=budget, excluded=frozenset(), **fields)


def _check(strategy: Strategy, pool: Request, selection: Selection) -> None:
    def broke(problem: str) -> BadSelection:
        return BadSelection(name=strategy.name, problem=problem)

    picks = selection.ids.tolist()
    if len(picks) != pool.budget:
        raise broke(f"it picked {len(picks)} items instead of {pool.budget}.")
    if len(set(picks)) != len(picks):
        raise broke("it picked an item twice.")
    if not np.isin(selection.ids, pool.ids).all():
        raise broke("it picked an item that is not a candidate.")
    if not np.isfinite(selection.utilities).all():
        raise broke("a pick has a utility that is not finite.")


def _finite(array: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """(n,) whether everything along a row is finite; `axis` is the rows' axis. Read in blocks."""
    finite = np.ones(array.shape[axis], dtype=bool)
    layers = [array] if axis == 0 else list(array)
    for layer in layers:
        for rows, block in _blocks(layer):
            finite[rows] &= _finite_rows(block)
    return finite


def _finite_rows(block: NDArray[Any]) -> NDArray[np.bool_]:
    """(r,) whether a row of (r,) or (r, c) is finite. Halves are looked at as whole numbers, in a third of the time:
    without their sign, those of infinity and NaN are the highest."""
    if block.dtype == np.float16 and block.ndim > 1 and block.size:
        highest: NDArray[np.bool_] = (block.view(np.uint16) & _SIGNLESS).max(axis=1) < _INFINITY
        return highest
    finite: NDArray[np.bool_] = np.isfinite(block).reshape(len(block), -1).all(axis=1)
    return finite


def _all_zero(probabilities: NDArray[Any], ids: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) rows without a prediction. Raises BadRequest for a usable row that is no distribution."""
    zero = np.zeros(len(ids), dtype=bool)
    for rows, block in _blocks(probabilities):
        total = np.asarray(block, dtype=np.float32) @ np.ones(block.shape[1], dtype=np.float32)
        low = np.float32(0) if block.min(initial=0) >= 0 else block.min(axis=1, initial=0)
        zero[rows] = (total == 0) & (low == 0)
        wrong = usable[rows] & ~zero[rows] & ((np.abs(total - 1) > 0.01) | (low < 0))
        if wrong.any():
            row = rows.start + int(np.flatnonzero(wrong)[0])
            raise BadRequest(problem=f"the probabilities of {ids[row]!s} do not sum to one.")
    return zero


def _check_chances(probabilities: NDArray[Any], ids: NDArray[Any], usable: NDArray[np.bool_]) -> None:
    """Raises BadRequest for a usable row with a number outside [0, 1]: no label has that as its probability."""
    for rows, block in _blocks(probabilities):
        wrong = usable[rows] & ((block < 0) | (block > 1)).any(axis=1)
        if wrong.any():
            row = rows.start + int(np.flatnonzero(wrong)[0])
            raise BadRequest(problem=f"a probability of {ids[row]!s} is not between 0 and 1.")


def _blocks(array: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    for start in range(0, len(array), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(array)))
        yield rows, array[rows]


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view

"""What people do without a strategy: they label in an order that was fixed before the first label."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import strategies
from backend.backtest.bench import Bench

Rows = NDArray[np.int64]


def order(bench: Bench, way: str, seed: int, labels: int) -> Rows:
    """The first `labels` rows of the pool, in the order of this way of WAYS.

    MagLev's comparison of active learning with what experts picked by hand: Haussmann et al., *Scalable active
    learning for object detection*, IV 2020, 2004.04699. These ways know more than a strategy does: the folders are
    those of the labels, and an example of every class is at hand.
    """
    return WAYS[way](bench, np.random.default_rng(seed), min(labels, len(bench.labels)))


def _by_folder(bench: Bench, _random: np.random.Generator, labels: int) -> Rows:
    rows: Rows = np.lexsort((bench.moments, bench.labels))
    return rows[:labels]


def _by_turns(bench: Bench, _random: np.random.Generator, labels: int) -> Rows:
    of_folder: Rows = np.lexsort((bench.moments, bench.labels))
    starts = np.searchsorted(bench.labels[of_folder], np.arange(len(bench.classes)))
    turn = np.arange(len(of_folder)) - starts[bench.labels[of_folder]]
    rows: Rows = of_folder[np.argsort(turn, kind="stable")]
    return rows[:labels]


def _by_time(bench: Bench, _random: np.random.Generator, labels: int) -> Rows:
    return np.argsort(bench.moments, kind="stable")[:labels]


def _by_example(bench: Bench, random: np.random.Generator, labels: int) -> Rows:
    shuffled = random.permutation(len(bench.labels))
    examples = shuffled[np.unique(bench.labels[shuffled], return_index=True)[1]][:labels]
    request = strategies.Request(
        ids=np.arange(len(bench.labels)),
        budget=labels - len(examples),
        embeddings=bench.pool,
        targets=np.asarray(bench.pool[examples]),
        excluded=frozenset(examples.tolist()),
    )
    return np.concatenate([examples, strategies.run(strategies.create("similar"), request).ids])


WAYS: dict[str, Callable[[Bench, np.random.Generator, int], Rows]] = {
    "by_folder": _by_folder,  # one class folder after the other
    "by_turns": _by_turns,  # one of every class folder in turn
    "by_time": _by_time,  # as they came: by file name, by task
    "by_example": _by_example,  # the like of one example of each class
}

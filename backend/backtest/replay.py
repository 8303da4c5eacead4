"""One arm of a backtest: a strategy replayed from the first batch on, with a seed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import strategies
from backend.backtest import manual
from backend.backtest.bench import Bench
from backend.learning import training
from backend.learning.candidates import Unlabelled
from backend.learning.committee import Source
from backend.learning.heads import Head
from backend.learning.neighbour_heads import NeighbourHead
from backend.rounds.graph import NODES
from backend.rounds.inputs import OF_A_MODEL, model_inputs

HeadKind = Literal["service", "logistic", "mlp"]


@dataclass(frozen=True)
class Arm:
    """What is compared: a strategy, or one of `manual.WAYS`, and the head that learns from its picks.

    `head` is "service", as a round fits it by default, or "logistic" or "mlp", which look at labels alone. `samples` is
    where plausible heads come from.
    """

    strategy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    head: HeadKind = "service"
    name: str = ""
    samples: Source = "bootstrap"

    @property
    def title(self) -> str:
        return self.name or (self.strategy if self.head == "service" else f"{self.strategy} ({self.head})")


@dataclass(frozen=True)
class Curve:
    """Test accuracy after each number of labels, and the seconds that each selection took."""

    labels: tuple[int, ...]
    accuracy: tuple[float, ...]
    seconds: tuple[float, ...]
    chosen: tuple[str, ...]


def replay(
    bench: Bench,
    arm: Arm,
    seed: int,
    schedule: Sequence[int],
    progress: Callable[[int], None] = lambda _labels: None,
) -> Curve:
    """Label `schedule[0]` items, fit, test; label up to `schedule[1]`, and so on; labels are those of the bench.

    Without a model a strategy that needs one starts from a batch drawn at random, the same for all such arms of a
    seed. The random arm's labels are nested by seed.
    """
    known: NDArray[np.int64] = np.empty(0, np.int64)
    fit: training.FitReport | None = None
    accuracy, seconds, chosen = [], [], []
    by_hand = manual.order(bench, arm.strategy, seed, schedule[-1]) if arm.strategy in manual.WAYS else None
    for number, labels in enumerate(schedule):
        started = time.perf_counter()
        if by_hand is None:
            budget = min(labels, len(bench.labels)) - len(known)
            picks, name = _pick(bench, arm, fit, known, budget, seed + number)
        else:
            picks, name = by_hand[len(known) : labels], arm.strategy
        seconds.append(time.perf_counter() - started)
        known = np.concatenate([known, picks])
        chosen.append(name)
        fit = _fit(bench, arm, known, seed)
        predicted = _only(bench, known) if fit is None else _predict(fit.head, bench, "test").argmax(axis=1)
        accuracy.append(float(np.mean(predicted == bench.test_labels)))
        progress(labels)
    return Curve(tuple(schedule), tuple(accuracy), tuple(seconds), tuple(chosen))


def _pick(
    bench: Bench, arm: Arm, fit: training.FitReport | None, known: NDArray[np.int64], budget: int, seed: int
) -> tuple[NDArray[np.int64], str]:
    """The rows to label next, and what chose them."""
    strategy = strategies.create(arm.strategy, **arm.parameters)
    if fit is None and strategy.needs & OF_A_MODEL:
        strategy = strategies.create("random")
    asked = strategy.needs | strategy.uses
    head, penalty = (None, 0.0) if fit is None or not asked & OF_A_MODEL else (fit.head, fit.penalty)
    labelled, classes = bench.pool[known], bench.labels[known]
    said = None if head is None else _predict(head, bench, "pool")
    inputs = model_inputs(asked, head, penalty, bench.pool, labelled, classes, seed, arm.samples, said)
    ids = np.arange(len(bench.labels))
    request = strategies.Request(ids=ids, budget=budget, seed=seed, excluded=frozenset(known.tolist()), **inputs)
    selection = strategies.run(strategy, request)
    return selection.ids, str(selection.diagnostics.get("chosen", strategy.name))


def _fit(bench: Bench, arm: Arm, known: NDArray[np.int64], seed: int) -> training.FitReport | None:
    labels = bench.labels[known]
    if len(np.unique(labels)) < 2:
        return None
    pool = None
    if arm.head == "service" and len(known) <= training.PROPAGATION_LABELS:
        is_whole = len(bench.labels) <= NODES  # of a larger pool a round's graph is a sample
        pool = Unlabelled.draw(bench.graph, bench.keys(known), bench.read, seed, is_whole=is_whole)
    methods = training.METHODS["mlp" if arm.head == "mlp" else "linear"]
    return training.fit(bench.pool[known], labels, bench.classes, pool, seed=seed, methods=methods)


def _predict(head: Head, bench: Bench, part: Literal["pool", "test"]) -> NDArray[np.float32]:
    """The head's probabilities; items stay where they are, so their neighbours are looked for once."""
    if isinstance(head, NeighbourHead):
        return head.answer(getattr(bench, part), getattr(bench, f"near_{part}"))
    return head.predict(getattr(bench, part))


def _only(bench: Bench, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The one class that has a label so far, for every test item."""
    return np.full(len(bench.test_labels), bench.labels[known[0]])

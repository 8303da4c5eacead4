"""One arm of a backtest: a strategy replayed from the first batch on, with a seed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import strategies
from backend.backtest.bench import Bench
from backend.learning import training
from backend.learning.candidates import Unlabelled
from backend.rounds.inputs import OF_A_MODEL, model_inputs

HeadKind = Literal["service", "logistic"]


@dataclass(frozen=True)
class Arm:
    """What is compared: a strategy, and the head that learns from its picks.

    `head` is "service", as a round fits it, or "logistic", which looks at labels alone.
    """

    strategy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    head: HeadKind = "service"
    name: str = ""

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
    strategy = strategies.create(arm.strategy, **arm.parameters)
    asked = strategy.needs | strategy.uses
    ids = np.arange(len(bench.labels))
    known = np.empty(0, np.int64)
    fit: training.FitReport | None = None
    accuracy, seconds, chosen = [], [], []
    for number, labels in enumerate(schedule):
        started = time.perf_counter()
        inputs = _inputs(bench, asked, fit, known, seed + number)
        able = strategy if fit is not None or not strategy.needs & OF_A_MODEL else strategies.create("random")
        budget = min(labels, len(ids)) - len(known)
        request = strategies.Request(ids=ids, budget=budget, seed=seed, excluded=frozenset(known.tolist()), **inputs)
        selection = strategies.run(able, request)
        seconds.append(time.perf_counter() - started)
        known = np.concatenate([known, selection.ids])
        chosen.append(str(selection.diagnostics.get("chosen", able.name)))
        fit = _fit(bench, arm, known, seed)
        predicted = _only(bench, known) if fit is None else fit.head.predict(bench.test).argmax(axis=1)
        accuracy.append(float(np.mean(predicted == bench.test_labels)))
        progress(labels)
    return Curve(tuple(schedule), tuple(accuracy), tuple(seconds), tuple(chosen))


def _inputs(
    bench: Bench, asked: strategies.Needs, fit: training.FitReport | None, known: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    head, penalty = (None, 0.0) if fit is None else (fit.head, fit.penalty)
    return model_inputs(asked, head, penalty, bench.pool, bench.pool[known], bench.labels[known], seed)


def _fit(bench: Bench, arm: Arm, known: NDArray[np.int64], seed: int) -> training.FitReport | None:
    labels = bench.labels[known]
    if len(np.unique(labels)) < 2:
        return None
    pool = None
    if arm.head == "service" and len(known) <= training.PROPAGATION_LABELS:
        pool = Unlabelled.draw(bench.graph, bench.keys(known), bench.read, seed)
    return training.fit(bench.pool[known], labels, bench.classes, pool, seed=seed)


def _only(bench: Bench, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The one class that has a label so far, for every test item."""
    return np.full(len(bench.test_labels), bench.labels[known[0]])

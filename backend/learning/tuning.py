"""Looking for a head's hyperparameters by cross-validation on the training labels, within a budget of seconds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.candidates import Method
from backend.learning.perceptron import Recipe
from backend.learning.training import METHODS, FitReport, Tuned, fit
from backend.settings import HeadKind

_PENALTIES = (1e-6, 1e-1)
_HIDDEN = (64, 128, 256, 512)
_LEARNING_RATES = (1e-4, 1e-2)
_DECAYS = (1e-3, 1.0)
_MOST_DROPOUT = 0.6

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Tuning:
    """What was found. `trials` were done of each kind of head; `before` and `after` are the lowest calibrated log loss
    over the folds with the usual hyperparameters and with these, None where there are too few labels for folds.
    """

    tuned: Tuned
    trials: Mapping[str, int]
    before: float | None
    after: float | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As a version's lineage keeps it; `tuned_from` reads it back."""
        return asdict(self)


def tuned_from(facts: Mapping[str, Any] | None) -> Tuned:
    """The hyperparameters that `Tuning.as_json` wrote; the usual ones for None."""
    if facts is None:
        return Tuned()
    recipe = facts["tuned"]["recipe"]
    return Tuned(facts["tuned"]["penalty"], None if recipe is None else Recipe(**recipe))


def tune(
    embeddings: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    kind: HeadKind,
    *,
    budget_s: float,
    trials: int,
    seed: int,
    balanced: bool = False,
    familiar: NDArray[np.bool_] | None = None,
) -> Tuning:
    """Try penalties of a logistic head, and recipes of a perceptron, whichever `kind` allows, on the labels alone.

    The arguments are those of `training.fit`. Each kind of head gets its share of `budget_s` and at most `trials`
    trials, the first with what a plain fit would take, so the result is never worse on the folds; how it does beyond
    them, the holdout says. Seed and number of trials done decide the result; the budget only ends it. A trial is a fit.

    Bergstra et al., *Algorithms for hyper-parameter optimization*, NIPS 2011 (the tree-structured Parzen estimator).
    """
    started = time.perf_counter()
    attempt = partial(fit, embeddings, labels, classes, seed=seed, balanced=balanced, familiar=familiar)
    ways: list[Method] = [way for way in ("logistic", "mlp") if way in METHODS[kind]]
    plain = {way: attempt(methods=frozenset({way})) for way in ways}
    if any(not report.folds for report in plain.values()):
        return Tuning(Tuned(), dict.fromkeys(ways, 0), None, None, time.perf_counter() - started)
    tuned, done, losses = Tuned(), dict[str, int](), []
    for way in ways:
        allowed = frozenset({way})
        first, space = _SPACES[way](plain[way])

        def loss(values: Values, tuned: Tuned = tuned, allowed: frozenset[Method] = allowed) -> float:
            return _loss(attempt(methods=allowed, tuned=_with(tuned, values)))

        best, done[way], lowest = _search(loss, first, space, budget_s / len(ways), trials, seed)
        tuned = _with(tuned, best)
        losses.append(lowest)
    before = min(_loss(report) for report in plain.values())
    return Tuning(tuned, done, before, min(losses), round(time.perf_counter() - started, 2))


def _search(
    loss: Callable[[Values], float],
    first: Values,
    space: Callable[[Any], Values],
    budget_s: float,
    trials: int,
    seed: int,
) -> tuple[Values, int, float]:
    """The best values, how many trials were done, and the lowest loss."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    study.enqueue_trial(dict(first))
    ends = time.perf_counter() + budget_s
    study.optimize(lambda trial: loss(space(trial)), n_trials=1)  # whatever the budget
    left_s = ends - time.perf_counter()
    if trials > 1 and left_s > 0:
        study.optimize(lambda trial: loss(space(trial)), n_trials=trials - 1, timeout=left_s)
    return study.best_params, len(study.trials), float(study.best_value)


def _loss(report: FitReport) -> float:
    return min(candidate.log_loss for candidate in report.candidates)


def _with(tuned: Tuned, values: Values) -> Tuned:
    if "penalty" in values:
        return replace(tuned, penalty=float(values["penalty"]))
    return replace(tuned, recipe=Recipe(**values))


def _logistic(plain: FitReport) -> tuple[Values, Callable[[Any], Values]]:
    def space(trial: Any) -> Values:
        return {"penalty": trial.suggest_float("penalty", *_PENALTIES, log=True)}

    return {"penalty": plain.penalty}, space


def _mlp(_plain: FitReport) -> tuple[Values, Callable[[Any], Values]]:
    usual = Recipe()

    def space(trial: Any) -> Values:
        return {
            "hidden": trial.suggest_categorical("hidden", _HIDDEN),
            "learning_rate": trial.suggest_float("learning_rate", *_LEARNING_RATES, log=True),
            "decay": trial.suggest_float("decay", *_DECAYS, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, _MOST_DROPOUT),
        }

    first = {name: getattr(usual, name) for name in ("hidden", "learning_rate", "decay", "dropout")}
    return first, space


_SPACES: Mapping[Method, Callable[[FitReport], tuple[Values, Callable[[Any], Values]]]] = {
    "logistic": _logistic,
    "mlp": _mlp,
}

"""Looking for hyperparameters: never worse on the folds, repeatable, recorded, and within its budget."""

import json

import numpy as np
import pytest

from backend.learning import tuning
from backend.learning.training import METHODS, Tuned, fit
from backend.learning.tuning import tune, tuned_from
from backend.settings import HeadKind
from tests.learning.test_training import CLASSES, digits

X, Y = digits()
X, Y = X[:60], Y[:60]


def lowest(kind: HeadKind, tuned: Tuned) -> float:
    found = fit(X, Y, CLASSES, methods=METHODS[kind], tuned=tuned, seed=3)
    return min(candidate.log_loss for candidate in found.candidates)


@pytest.mark.parametrize(("kind", "trials", "times"), [("linear", 12, 2), ("mlp", 2, 1)])
def test_what_is_found_is_better_on_the_folds_and_the_same_each_time(kind: HeadKind, trials: int, times: int) -> None:
    one, *same = (tune(X, Y, CLASSES, kind, budget_s=600, trials=trials, seed=3) for _ in range(times))

    assert all(one.tuned == other.tuned for other in same)
    assert sum(one.trials.values()) == trials
    assert one.before == pytest.approx(lowest(kind, Tuned()))
    assert one.after == pytest.approx(lowest(kind, one.tuned))
    assert one.after <= one.before
    assert tuned_from(json.loads(json.dumps(one.as_json()))) == one.tuned


def test_another_seed_looks_elsewhere() -> None:
    found = {tune(X, Y, CLASSES, "linear", budget_s=600, trials=5, seed=seed).tuned.penalty for seed in (1, 2, 3)}

    assert len(found) > 1


def test_a_budget_that_is_over_ends_it_after_the_trial_that_runs() -> None:
    found = tune(X, Y, CLASSES, "best", budget_s=1e-6, trials=50, seed=0)

    assert found.trials == {"logistic": 1, "mlp": 1}
    assert found.after == found.before
    usual = fit(X, Y, CLASSES, methods=METHODS["best"])
    assert fit(X, Y, CLASSES, methods=METHODS["best"], tuned=found.tuned).head.digest == usual.head.digest


def test_too_few_labels_for_folds_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_search", None)

    found = tune(X[:20], Y[:20], CLASSES, "best", budget_s=600, trials=5, seed=0)

    assert (found.tuned, found.after) == (Tuned(), None)


def test_labels_that_the_encoder_was_trained_on_have_no_say() -> None:
    familiar = np.arange(60) < 20
    lies = np.where(familiar, (Y + 1) % 10, Y)
    folds = fit(X, lies, CLASSES, familiar=familiar).out_of_fold

    one = tune(X, lies, CLASSES, "linear", budget_s=600, trials=3, seed=3, familiar=familiar)

    assert folds is not None
    assert (folds.rows >= 20).all()
    usual = fit(X, lies, CLASSES, familiar=familiar, seed=3)
    assert one.before == min(candidate.log_loss for candidate in usual.candidates)

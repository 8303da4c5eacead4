"""The same selections by other libraries; runs in their environment. Without arguments it lists what it can do."""

import collections.abc
import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Call = Any


class Known:
    """A classifier that is fitted already, as the peers want one: rows of X are row numbers of the pool."""

    classes_ = np.arange(10)

    def __init__(self, probabilities: Any) -> None:
        self.probabilities = probabilities

    def predict_proba(self, rows: Any) -> Any:
        return self.probabilities[np.asarray(rows).ravel().astype(np.int64)]


def modal(folder: Path, budget: int, function: str) -> Call:
    from modAL import uncertainty

    p = np.load(folder / "probabilities.npy")
    rows = np.arange(len(p))[:, None]
    return lambda: getattr(uncertainty, function)(Known(p), rows, n_instances=budget)


def skactiveml(folder: Path, budget: int, method: str) -> Call:
    from skactiveml.pool import uncertainty_scores
    from skactiveml.utils import simple_batch

    p = np.load(folder / "probabilities.npy").astype(np.float64)
    return lambda: simple_batch(uncertainty_scores(p, method=method), random_state=0, batch_size=budget)


def skactiveml_coreset(folder: Path, budget: int) -> Call:
    from skactiveml.pool import CoreSet

    x = np.load(folder / "embeddings.npy").astype(np.float32)
    y = np.full(len(x), np.nan)
    y[:200] = 0
    return lambda: CoreSet(random_state=0).query(x, y, batch_size=budget)


def alipy(folder: Path, budget: int, measure: str) -> Call:
    collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]  # it was written for Python 3.9
    from alipy.query_strategy import QueryInstanceUncertainty

    p = np.load(folder / "probabilities.npy")
    rows = list(range(len(p)))
    query = QueryInstanceUncertainty(measure=measure)
    return lambda: query.select_by_prediction_mat(unlabel_index=rows, predict=p, batch_size=budget)


def small_text(folder: Path, budget: int, name: str) -> Call:
    from small_text.query_strategies import strategies

    p = np.load(folder / "probabilities.npy")
    rows = np.arange(len(p))
    strategy = getattr(strategies, name)()

    class Fitted:
        def predict_proba(self, _dataset: Any) -> Any:
            return p

    return lambda: strategy.query(Fitted(), rows, rows, np.empty(0, int), np.empty(0, int), n=budget)


def small_text_coreset(folder: Path, budget: int) -> Call:
    from small_text.query_strategies.coresets import greedy_coreset

    x = np.load(folder / "embeddings.npy").astype(np.float32)
    rows = np.arange(len(x))
    return lambda: greedy_coreset(x, rows[200:], rows[:200], budget)


def libact(folder: Path, budget: int, method: str) -> Call:
    from libact.base.dataset import Dataset
    from libact.base.interfaces import ProbabilisticModel
    from libact.query_strategies import UncertaintySampling

    p = np.load(folder / "probabilities.npy")
    rows = np.arange(len(p))[:, None]

    class Fitted(ProbabilisticModel):
        def train(self, *_arguments: Any) -> None: ...

        def predict(self, asked: Any) -> Any:
            return self.predict_proba(asked).argmax(axis=1)

        def score(self, *_arguments: Any) -> None: ...

        def predict_real(self, asked: Any) -> Any:
            return self.predict_proba(asked)

        def predict_proba(self, asked: Any) -> Any:
            return p[np.asarray(asked).ravel().astype(np.int64)]

    query = UncertaintySampling(Dataset(rows, [None] * len(rows)), method=method, model=Fitted())

    def call() -> Any:
        _, scores = query.make_query(return_score=True)  # it answers one item; a batch is the highest scores
        ids, values = zip(*scores, strict=True)
        return np.array(ids)[np.argsort(-np.array(values))[:budget]]

    return call


def alaas(folder: Path, budget: int, name: str) -> Call:
    located = importlib.util.find_spec("alaas")
    assert located is not None
    assert located.origin is not None
    sys.path.insert(0, str(Path(located.origin).parent / "server"))  # its package starts a server when imported
    strategy = importlib.import_module("strategy")
    p = np.load(folder / "probabilities.npy")
    query = getattr(strategy, name)([f"item-{row}" for row in range(len(p))], None)
    return lambda: query.query(budget, p)


CALLS: dict[str, Call] = {
    "modAL:least_confidence": lambda f, b: modal(f, b, "uncertainty_sampling"),
    "modAL:margin": lambda f, b: modal(f, b, "margin_sampling"),
    "modAL:entropy": lambda f, b: modal(f, b, "entropy_sampling"),
    "scikit-activeml:least_confidence": lambda f, b: skactiveml(f, b, "least_confident"),
    "scikit-activeml:margin": lambda f, b: skactiveml(f, b, "margin_sampling"),
    "scikit-activeml:entropy": lambda f, b: skactiveml(f, b, "entropy"),
    "scikit-activeml:k_center_greedy": skactiveml_coreset,
    "ALiPy:least_confidence": lambda f, b: alipy(f, b, "least_confident"),
    "ALiPy:margin": lambda f, b: alipy(f, b, "margin"),
    "ALiPy:entropy": lambda f, b: alipy(f, b, "entropy"),
    "libact:least_confidence": lambda f, b: libact(f, b, "lc"),
    "libact:margin": lambda f, b: libact(f, b, "sm"),
    "libact:entropy": lambda f, b: libact(f, b, "entropy"),
    "ALaaS:least_confidence": lambda f, b: alaas(f, b, "LeastConfidence"),
    "ALaaS:margin": lambda f, b: alaas(f, b, "MarginConfidence"),
    "ALaaS:ratio": lambda f, b: alaas(f, b, "RatioConfidence"),
    "ALaaS:entropy": lambda f, b: alaas(f, b, "EntropySampling"),
    "small-text:least_confidence": lambda f, b: small_text(f, b, "LeastConfidence"),
    "small-text:margin": lambda f, b: small_text(f, b, "BreakingTies"),
    "small-text:entropy": lambda f, b: small_text(f, b, "PredictionEntropy"),
    "small-text:k_center_greedy": small_text_coreset,
}


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps(list(CALLS)))
        return
    folder, name, budget = sys.argv[1:]
    call = CALLS[name](Path(folder), int(budget))
    started = time.perf_counter()
    call()
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()

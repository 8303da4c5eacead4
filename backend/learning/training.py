"""Fitting a head: logistic regression, helped by the unlabelled pool while labels are few."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from backend.errors import NothingToLearnFrom, UnusableTrainingData
from backend.learning.calibration import MIN_SAMPLES
from backend.learning.candidates import Candidate, Fitted, Labelled, Method, fit_logistic, fit_propagation
from backend.learning.folds import assign_folds
from backend.learning.heads import Head

_PROPAGATION_LABELS = 1_000  # above, it gained nothing and the graph costs seconds
_PROPAGATION_CLASSES = 200
_GRAPH_ROWS = 20_000  # the graph costs its square; more pool is a seeded draw of this many


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Calibrated probabilities (m, K) float32 of labelled ``rows`` (m,) by heads that did not see them."""

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FitReport:
    """A head and how it came to be. ``dropped`` labelled rows had an embedding that is not finite.

    ``chosen_by`` is "default" when there were too few labels to cross-validate; then ``candidates`` is empty and
    ``out_of_fold`` None. ``calibrated`` is False below 50 out-of-fold labels: the temperature is 1.
    """

    head: Head
    method: Method
    penalty: float
    chosen_by: Literal["cross-validation", "default"]
    folds: int
    candidates: tuple[Candidate, ...]
    out_of_fold: OutOfFold | None
    calibrated: bool
    labels: int
    classes_seen: int
    dropped: int
    graph_rows: int
    seconds: float


def fit(
    embeddings: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    pool: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    balanced: bool = False,
    methods: frozenset[Method] = frozenset({"logistic", "propagation"}),
) -> FitReport:
    """Fit a head to embeddings (l, d) float16/32 with class indices ``labels`` (l,) into ``classes``.

    ``pool`` (n, d) is unlabelled; give it without the holdout. While there are at most 1,000 labels they are also
    spread over its neighbour graph, and cross-validation on the labels decides which head is kept. Above
    20,000 rows of pool the graph is a seeded draw of that many. ``balanced`` weighs all classes alike. The same
    arguments give the same bits on one machine with one number of threads.
    Raises NothingToLearnFrom without labels, UnusableTrainingData for arrays that do not fit together.
    """
    started = time.perf_counter()
    found, indices, dropped = _usable(embeddings, labels, classes)
    features = torch.tensor(found)
    generator = np.random.Generator(np.random.PCG64(seed))
    seen, own = np.unique(indices, return_inverse=True)
    unlabelled = None
    few = len(indices) <= _PROPAGATION_LABELS and 2 <= len(seen) <= _PROPAGATION_CLASSES
    if pool is not None and few and "propagation" in methods:
        unlabelled = _draw(pool, features.shape[1], generator)
    mean, scale = _moments(features if unlabelled is None else unlabelled)
    fold, folds = assign_folds(own.astype(np.int64), generator)
    class_weights = len(own) / (len(seen) * np.bincount(own)) if balanced else np.ones(len(seen))
    labelled = Labelled(
        (features - mean) / scale,
        own.astype(np.int64),
        fold,
        folds,
        torch.tensor(class_weights, dtype=torch.float32),
    )
    fitted = [fit_logistic(labelled)]
    if unlabelled is not None:
        fitted.append(fit_propagation(labelled, unlabelled.sub_(mean).div_(scale), fitted[0], generator))
    allowed = [one for one in fitted if one.method in methods] or fitted
    # Without folds the later one wins: below thirty labels the pool's structure is most of what is known.
    chosen = min(reversed(allowed), key=lambda one: one.best_loss)
    weights, bias = _with_unseen(chosen, len(own), seen, len(classes))
    return FitReport(
        head=Head(tuple(classes), mean.numpy(), scale.numpy(), weights, bias, chosen.temperature),
        method=chosen.method,
        penalty=chosen.penalty,
        chosen_by="cross-validation" if folds else "default",
        folds=folds,
        candidates=tuple(candidate for one in fitted for candidate in one.candidates),
        out_of_fold=_out_of_fold(chosen, len(own), seen, len(classes)) if folds else None,
        calibrated=len(chosen.rows) >= MIN_SAMPLES,
        labels=len(own),
        classes_seen=len(seen),
        dropped=dropped,
        graph_rows=0 if unlabelled is None else len(unlabelled) + len(own),
        seconds=time.perf_counter() - started,
    )


def _usable(
    embeddings: NDArray[Any], labels: NDArray[np.integer[Any]], classes: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Checked float32 embeddings and int64 labels without rows that are not finite, and how many those were."""
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UnusableTrainingData(problem=f"embeddings have the shape {embeddings.shape} and labels {labels.shape}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
        raise UnusableTrainingData(problem=f"a label is outside the {len(classes)} classes")
    features = np.array(embeddings, dtype=np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.any():
        raise NothingToLearnFrom()
    return features[finite], labels[finite].astype(np.int64), int((~finite).sum())


def _draw(pool: NDArray[Any], features: int, generator: np.random.Generator) -> Tensor | None:
    """At most 20,000 finite rows of the pool, float32, or None if it has none; a map is read in order."""
    if pool.ndim != 2 or pool.shape[1] != features:
        raise UnusableTrainingData(problem=f"the pool has the shape {pool.shape}, the labels {features} features")
    if len(pool) > _GRAPH_ROWS:
        pool = pool[np.sort(generator.choice(len(pool), _GRAPH_ROWS, replace=False))]
    rows = torch.tensor(np.asarray(pool)).float()
    finite = rows.isfinite().all(dim=1)
    rows = rows if finite.all() else rows[finite]
    return rows if len(rows) else None


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, (d,) float32; 1 for a feature that never changes."""
    scale, mean = torch.std_mean(rows, dim=0, correction=0)
    scale[scale <= 1e-6 * scale.max().clamp_min(1e-30)] = 1.0
    return mean, scale


def _with_unseen(
    chosen: Fitted, labels: int, seen: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (d, classes) and bias (classes,) with the seen classes' logits centred and `_unseen_logit`."""
    weights = np.zeros((len(chosen.weights), classes), np.float32)
    weights[:, seen] = _centred(chosen.weights[:, -1].numpy())
    bias = np.full(classes, chosen.temperature * _unseen_logit(labels, len(seen)), np.float32)
    bias[seen] = _centred(chosen.bias[-1].numpy())
    return weights, bias


def _out_of_fold(chosen: Fitted, labels: int, seen: NDArray[np.int64], classes: int) -> OutOfFold:
    logits = np.full((len(chosen.rows), classes), _unseen_logit(labels, len(seen)), np.float64)
    logits[:, seen] = _centred(chosen.logits) / chosen.temperature
    return OutOfFold(chosen.rows, softmax(logits, axis=1).astype(np.float32))


def _unseen_logit(labels: int, seen: int) -> float:
    """The calibrated logit of a class without a label, beside centred logits of the others.

    Where the head knows nothing, all others being 0, the class gets Laplace's 1 / (labels + classes); elsewhere
    less. It is at most log(1/2) while the largest of centred logits is at least 0: it is never the prediction.
    """
    return float(np.log(seen / (labels + seen)))


def _centred(array: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = array - array.mean(axis=-1, keepdims=True)
    return centred

"""Fitting a head: logistic regression, helped by the unlabelled pool while labels are few, or a perceptron."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from backend.errors import NothingToLearnFrom, UnusableTrainingData
from backend.learning.calibration import MIN_SAMPLES
from backend.learning.candidates import (
    PENALTIES,
    Candidate,
    Fitted,
    Labelled,
    Method,
    Unlabelled,
    fit_logistic,
    fit_propagation,
)
from backend.learning.folds import assign_folds
from backend.learning.heads import Head
from backend.learning.hearing import hear, listening
from backend.learning.perceptron import Recipe, fit_perceptron
from backend.settings import HeadKind

PROPAGATION_LABELS = 2_000  # above, it gained nothing and the graph costs seconds
_PROPAGATION_CLASSES = 200

METHODS: dict[HeadKind, frozenset[Method]] = {
    "linear": frozenset({"logistic", "propagation"}),
    "mlp": frozenset({"mlp"}),
    "best": frozenset({"logistic", "propagation", "mlp"}),
}
"""The ways to fit a head of that kind, among which cross-validation chooses."""


@dataclass(frozen=True)
class Tuned:
    """Hyperparameters found out before: the logistic head's penalty, a perceptron's recipe. None: as usual."""

    penalty: float | None = None
    recipe: Recipe | None = None


UNTUNED = Tuned()


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Calibrated probabilities (m, K) float32 of labelled ``rows`` (m,) by heads that did not see them."""

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FitReport:
    """A head and how it came to be. ``dropped`` labelled rows had an embedding that is not finite.

    ``chosen_by`` is "default" when there were too few labels to cross-validate; then ``candidates`` is empty and
    ``out_of_fold`` None. ``calibrated`` is False below 50 out-of-fold labels: the temperature is 1. ``neighbours`` is
    among how many items the head asks an item's neighbours, 0 where that did not pay.
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
    graph_nodes: int
    neighbours: int
    seconds: float


def fit(
    embeddings: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    pool: Unlabelled | None = None,
    *,
    seed: int = 0,
    balanced: bool = False,
    methods: frozenset[Method] = METHODS["linear"],
    familiar: NDArray[np.bool_] | None = None,
    tuned: Tuned = UNTUNED,
) -> FitReport:
    """Fit a head to embeddings (l, d) float16/32 with class indices ``labels`` (l,) into ``classes``.

    While there are at most 2,000 labels they are also spread over the neighbour graph of ``pool``, which is given
    without the holdout, and cross-validation on the labels decides which head is kept. ``balanced`` weighs all
    classes alike. The encoder was trained on the labels of the `familiar` rows (l,), so they are never held out.
    `tuned` says how the head is regularised where that was found out before. The same arguments give the same bits on
    one machine with one number of threads.
    Raises NothingToLearnFrom without labels, UnusableTrainingData for arrays that do not fit together.
    """
    started = time.perf_counter()
    found, indices, finite = _usable(embeddings, labels, classes)
    generator = np.random.Generator(np.random.PCG64(seed))
    seen, own = np.unique(indices, return_inverse=True)
    few = len(indices) <= PROPAGATION_LABELS and 2 <= len(seen) <= _PROPAGATION_CLASSES
    is_helped = pool is not None and few and len(pool.sample) > 0 and "propagation" in methods
    features = torch.from_numpy(found)
    unlabelled = torch.from_numpy(_fitting(pool, finite, found.shape[1])) if pool is not None and is_helped else None
    mean, scale = moments(features if unlabelled is None else unlabelled)
    fold, folds = assign_folds(own.astype(np.int64), generator, None if familiar is None else familiar[finite])
    class_weights = len(own) / (len(seen) * np.bincount(own)) if balanced else np.ones(len(seen))
    labelled = Labelled(
        (features - mean) / scale,
        own.astype(np.int64),
        fold,
        folds,
        torch.tensor(class_weights, dtype=torch.float32),
    )
    fitted = [fit_perceptron(labelled, tuned.recipe or Recipe(), seed)] if "mlp" in methods else []
    if methods != {"mlp"}:
        fitted.append(fit_logistic(labelled, PENALTIES if tuned.penalty is None else (tuned.penalty,)))
    lent = None if pool is None or unlabelled is None else replace(pool, labelled=pool.labelled[finite])
    if lent is not None and unlabelled is not None:
        fitted.append(fit_propagation(labelled, lent, (unlabelled - mean) / scale, fitted[-1]))
    allowed = [one for one in fitted if one.method in methods] or fitted
    # Without folds the later one wins: below thirty labels the pool's structure is most of what is known.
    chosen = min(reversed(allowed), key=lambda one: one.best_loss)
    asked = () if lent is None else hear(labelled, lent, allowed, (mean, scale))
    heard = min(asked, key=lambda one: one.candidate.log_loss, default=None)
    if heard is not None and heard.candidate.log_loss >= chosen.best_loss:
        heard = None
    chosen = chosen if heard is None else heard.fitted
    weights, bias = _with_unseen(chosen, len(own), seen, len(classes))
    head = Head(tuple(classes), mean.numpy(), scale.numpy(), weights, bias, chosen.temperature, *_hidden(chosen))
    held_out = chosen.logits / chosen.temperature if heard is None else heard.logits
    return FitReport(
        head=head if lent is None or heard is None else listening(head, lent, heard),
        method=chosen.method,
        penalty=chosen.penalty,
        chosen_by="cross-validation" if folds else "default",
        folds=folds,
        candidates=(*(candidate for one in fitted for candidate in one.candidates), *(one.candidate for one in asked)),
        out_of_fold=_out_of_fold(chosen.rows, held_out, len(own), seen, len(classes)) if folds else None,
        calibrated=len(chosen.rows) >= MIN_SAMPLES,
        labels=len(own),
        classes_seen=len(seen),
        dropped=int((~finite).sum()),
        graph_nodes=0 if lent is None else len(lent.graph),
        neighbours=0 if lent is None or heard is None else len(lent.graph),
        seconds=time.perf_counter() - started,
    )


def _usable(
    embeddings: NDArray[Any], labels: NDArray[np.integer[Any]], classes: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Checked float32 embeddings and int64 labels of the finite rows, and which (l,) those are."""
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UnusableTrainingData(problem=f"embeddings have the shape {embeddings.shape} and labels {labels.shape}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
        raise UnusableTrainingData(problem=f"a label is outside the {len(classes)} classes")
    features = np.array(embeddings, dtype=np.float32)
    finite = np.asarray(np.isfinite(features).all(axis=1))
    if not finite.any():
        raise NothingToLearnFrom()
    return features[finite], labels[finite].astype(np.int64), finite


def _fitting(pool: Unlabelled, finite: NDArray[np.bool_], features: int) -> NDArray[np.float32]:
    if pool.embeddings.shape[1] != features or len(pool.labelled) != len(finite):
        problem = (
            f"the pool's embeddings have the shape {pool.embeddings.shape} for {features} features, and "
            f"{len(pool.labelled)} nodes stand for {len(finite)} labels"
        )
        raise UnusableTrainingData(problem=problem)
    return pool.embeddings


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
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


def _hidden(chosen: Fitted) -> tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[None, None]:
    return (None, None) if chosen.hidden is None else (chosen.hidden[0].numpy(), chosen.hidden[1].numpy())


def _out_of_fold(
    rows: NDArray[np.int64], calibrated: NDArray[np.float32], labels: int, seen: NDArray[np.int64], classes: int
) -> OutOfFold:
    logits = np.full((len(rows), classes), _unseen_logit(labels, len(seen)), np.float64)
    logits[:, seen] = _centred(calibrated)
    return OutOfFold(rows, softmax(logits, axis=1).astype(np.float32))


def _unseen_logit(labels: int, seen: int) -> float:
    """The calibrated logit of a class without a label, beside centred logits of the others.

    Where the head knows nothing, all others being 0, the class gets Laplace's 1 / (labels + classes); elsewhere
    less. It is at most log(1/2) while the largest of centred logits is at least 0: it is never the prediction.
    """
    return float(np.log(seen / (labels + seen)))


def _centred(array: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = array - array.mean(axis=-1, keepdims=True)
    return centred

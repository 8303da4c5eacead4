"""Fitting a head for sets of labels: a logistic regression for each label against the rest, all in one fit."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.errors import NothingToLearnFrom, UnusableTrainingData
from backend.learning.calibration import MIN_SAMPLES, fit_temperature, log_loss
from backend.learning.candidates import DEFAULT_PENALTY, PENALTIES, Candidate, uncorrelated
from backend.learning.folds import assign_folds, deal
from backend.learning.heads import Head
from backend.learning.logistic import Solution, solve
from backend.learning.set_heads import SetHead
from backend.learning.training import FitReport, OutOfFold, moments

_FEWEST_FOR_THRESHOLD = 10  # held-out items with a label below which its threshold would fit noise
_HALF = 0.5
_PARTS = 5


def fit_sets(
    embeddings: NDArray[Any],
    sets: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    seed: int = 0,
    balanced: bool = False,
    familiar: NDArray[np.bool_] | None = None,
) -> FitReport:
    """Fit a head to embeddings (l, d) float16/32 with ``sets`` (l, K): which of ``classes`` each item has.

    All labels share one penalty, the one with the lowest log loss over the folds, and one temperature. ``balanced``
    weighs yes and no of each label alike. A fit aims at Platt's (N+1)/(N+2) and 1/(N+2) in the place of 1 and 0, so a
    label that nobody, or everybody, has is learned as rare or common, and no weight runs away. `familiar` is that of
    `training.fit`. The same arguments give the same bits on one machine with one number of threads.
    O(iterations · folds · penalties · l · min(l, d) · K). Raises NothingToLearnFrom, UnusableTrainingData.

    Platt, *Probabilistic outputs for support vector machines*, 1999.
    """
    started = time.perf_counter()
    if embeddings.ndim != 2 or sets.shape != (len(embeddings), len(classes)):
        raise UnusableTrainingData(problem=f"embeddings have the shape {embeddings.shape} and sets {sets.shape}")
    found = np.array(embeddings, dtype=np.float32)
    finite = np.asarray(np.isfinite(found).all(axis=1))
    if not finite.any():
        raise NothingToLearnFrom()
    features, truth = torch.from_numpy(found[finite]), sets[finite].astype(bool)
    mean, scale = moments(features)
    generator = np.random.Generator(np.random.PCG64(seed))
    fold, folds = assign_folds(_rarest(truth), generator, None if familiar is None else familiar[finite])
    rotated, basis = uncorrelated((features - mean) / scale)
    keep = [fold != part for part in range(folds)]
    candidates, logits, rows = list[Candidate](), dict[float, NDArray[np.float32]](), np.flatnonzero(fold >= 0)
    before: Solution | None = None
    for penalty in reversed(PENALTIES) if folds else ():
        before = _solve(rotated, truth, keep, penalty * found.shape[1], balanced, before, 1e-3, 60)
        logits[penalty] = _held_out(rotated, before, fold, rows, len(classes))
        candidates.append(_judge(logits[penalty], truth[rows], penalty))
    best = min(candidates, key=lambda one: one.log_loss).penalty if candidates else DEFAULT_PENALTY
    everything = [np.ones(len(truth), bool)]
    solved = _solve(rotated, truth, everything, best * found.shape[1], balanced, None, 1e-4, 150)
    calibrated = folds > 0 and len(rows) >= MIN_SAMPLES
    temperature = fit_temperature(*_pairs(logits[best], truth[rows])) if calibrated else 1.0
    unseen = _sigmoid(logits[best] / temperature) if folds else None
    head = SetHead(
        tuple(classes),
        mean.numpy(),
        scale.numpy(),
        (basis @ solved.weights[:, :, 0]).numpy(),
        solved.bias[:, 0].numpy(),
        temperature,
        thresholds=thresholds(unseen, truth[rows]) if unseen is not None else np.full(len(classes), _HALF, np.float32),
    )
    return FitReport(
        head=head,
        method="one-vs-rest",
        penalty=best,
        chosen_by="cross-validation" if folds else "default",
        folds=folds,
        candidates=tuple(candidates),
        out_of_fold=None if unseen is None else OutOfFold(np.flatnonzero(finite)[rows], unseen),
        calibrated=calibrated,
        labels=len(truth),
        classes_seen=int(truth.any(axis=0).sum()),
        dropped=int((~finite).sum()),
        graph_nodes=0,
        neighbours=0,
        seconds=time.perf_counter() - started,
    )


def held_out_sets(
    head: Head, embeddings: NDArray[Any], sets: NDArray[np.bool_], penalty: float, seed: int = 0
) -> NDArray[np.float32]:
    """What a head that was not fitted to it says of each labelled item: probabilities (l, K), in five parts.

    Embeddings (l, d) with the sets (l, K) of the labels of `head`, whose moments, temperature and `penalty` the parts
    have. O(iterations · parts · l · min(l, d) · K).
    """
    features = torch.from_numpy(head.reaches(embeddings))
    rotated, _ = uncorrelated(features)
    part = deal(_rarest(sets), _PARTS, seed)
    keep = [part != one for one in range(_PARTS)]
    solved = _solve(rotated, sets, keep, penalty * features.shape[1], False, None, 1e-3, 60)
    logits = _held_out(rotated, solved, part, np.arange(len(sets)), sets.shape[1])
    return _sigmoid(logits / np.float32(head.temperature))


def thresholds(probabilities: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(K,) probabilities from which on a label is told: half the best F1 there is on probabilities (m, K) of items that
    have the labels ``truth`` (m, K), and 0.5 for a label with less than 10 of these items.

    That is where F1 is highest if probabilities are honest. It is at most 0.5, so a rare label is told while it is
    still improbable. O(m log m · K).

    Lipton, Elkan & Naryanaswamy, *Optimal thresholding of classifiers to maximize F1 measure*, ECML PKDD 2014.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    hits = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0)
    told = np.arange(1, len(truth) + 1)[:, None]
    count = truth.sum(axis=0)
    f1 = 2 * hits / (told + count)
    found = np.clip(f1.max(axis=0, initial=0.0) / 2, 0.01, _HALF)
    return np.where(count >= _FEWEST_FOR_THRESHOLD, found, _HALF).astype(np.float32)


def _rarest(truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each item (l,) is dealt over the folds by: the rarest of its labels, from 0; those without are alike.

    A first step of Sechidis, Tsoumakas & Vlahavas, *On the stratification of multi-label data*, ECML PKDD 2011.
    """
    order = np.argsort(truth.sum(axis=0), kind="stable")
    place = np.where(truth.any(axis=1), truth[:, order].argmax(axis=1), truth.shape[1])
    dealt: NDArray[np.int64] = np.unique(place, return_inverse=True)[1].astype(np.int64)
    return dealt


def _solve(
    features: Tensor,
    truth: NDArray[np.bool_],
    parts: Sequence[NDArray[np.bool_]],
    penalty: float,
    balanced: bool,
    before: Solution | None,
    tolerance: float,
    most: int,
) -> Solution:
    """A problem for each part and label, the labels innermost; from `before`, the solution for another penalty."""
    yes = torch.from_numpy(truth).float()
    seen = torch.from_numpy(np.stack(parts, axis=1)).float()[:, :, None]
    total, have = seen.sum(dim=0), (seen * yes[:, None]).sum(dim=0)
    high, low = (have + 1) / (have + 2), 1 / (total - have + 2)
    targets = torch.where(yes[:, None] > 0, high, low).flatten(1)
    weights = seen.expand(-1, -1, truth.shape[1])
    if balanced:
        weights = weights * torch.where(yes[:, None] > 0, 1 / have.clamp_min(1), 1 / (total - have).clamp_min(1))
    weights = (weights / weights.sum(dim=0, keepdim=True)).flatten(1)
    start = None if before is None else torch.cat([before.weights, before.bias[None]])
    penalties = torch.full((targets.shape[1],), penalty)
    return solve(features, targets[:, :, None], weights, penalties, tolerance, most, start, is_binary=True)


def _held_out(
    features: Tensor, solved: Solution, fold: NDArray[np.int64], rows: NDArray[np.int64], labels: int
) -> NDArray[np.float32]:
    """Logits (m, K) of the rows (m,), each by the fold that did not train on it."""
    logits = np.empty((len(rows), labels), np.float32)
    for part in np.unique(fold[rows]):
        mine, columns = fold[rows] == part, slice(part * labels, (part + 1) * labels)
        found = features[torch.from_numpy(rows[mine])] @ solved.weights[:, columns, 0] + solved.bias[columns, 0]
        logits[mine] = found.numpy()
    return logits


def _judge(logits: NDArray[np.float32], truth: NDArray[np.bool_], penalty: float) -> Candidate:
    pairs, answers = _pairs(logits, truth)
    loss = log_loss(pairs, answers, fit_temperature(pairs, answers))
    return Candidate("one-vs-rest", penalty, float(((logits >= 0) == truth).all(axis=1).mean()), loss)


def _pairs(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Each label's question as one of two classes: logits (m · K, 2) of no and yes, and which is true (m · K,)."""
    flat = logits.reshape(-1)
    return np.stack([np.zeros_like(flat), flat], axis=1), truth.reshape(-1).astype(np.int64)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.sigmoid(torch.from_numpy(logits)).numpy()

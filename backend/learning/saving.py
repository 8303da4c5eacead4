"""How many labels drawn at random would have bought the same accuracy, by the random slice that there is anyway."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.learning.logistic import solve
from strategies.forecast import labels_for

FEWEST = 200  # labels of the random slice
MOST_CLASSES = 100
MOST_TIMES = 20  # the random curve is followed to so many times the labels that were given
_SPLITS, _DRAWS = 8, 200
_LEARNS = 0.6  # of the slice; the rest judges
_STEPS = (0.25, 0.5, 0.75, 1.0)
_PENALTIES = (1e-4, 1e-3)


@dataclass(frozen=True)
class Saving:
    """People gave `labels`; so many `drawn` at random would have reached the same `accuracy`, with a 95 % interval.

    None stands for more than 20 times the labels.
    """

    labels: int
    accuracy: float
    drawn: int | None
    low: int | None
    high: int | None


def estimate_saving(
    chosen: NDArray[Any],
    chosen_classes: NDArray[np.int64],
    drawn: NDArray[Any],
    drawn_classes: NDArray[np.int64],
    classes: int,
    seed: int = 0,
) -> Saving | None:
    """Compare labels that a strategy chose, embeddings (l, d), with those of a uniform draw (n, d); classes as indices.

    Both arms learn by plain logistic regression and are judged on parts of the draw that they have not seen. What is
    beyond the draw's own size is read off the power law through its learning curve. The interval resamples the splits
    and the items. Figueroa et al., *Predicting sample size required for classification performance*, BMC 2012.
    None below 200 drawn items, or above 100 classes. Costs some 64 small fits.
    """
    n = len(drawn)
    if n < FEWEST or not 2 <= classes <= MOST_CLASSES or not len(chosen):
        return None
    random = np.random.default_rng(seed)
    both = torch.from_numpy(np.concatenate([drawn, chosen]).astype(np.float32))
    features = (both - both.mean(dim=0)) / both.std(dim=0).clamp_min(1e-6)
    orders = [random.permutation(n) for _ in range(_SPLITS)]
    sizes = [max(2, round(n * _LEARNS * step)) for step in _STEPS]
    is_judged = np.zeros((_SPLITS, n), bool)
    weights = np.zeros((n, _SPLITS * len(sizes)), np.float32)
    for split, order in enumerate(orders):
        is_judged[split, order[round(n * _LEARNS) :]] = True
        for step, size in enumerate(sizes):
            weights[order[:size], split * len(sizes) + step] = 1 / size
    by_draw = _right(features[:n], drawn_classes, weights, features[:n], drawn_classes, classes)
    by_draw = by_draw.reshape(len(_PENALTIES), _SPLITS, len(sizes), n)
    even = np.full((len(chosen), 1), 1 / len(chosen), np.float32)
    by_choice = _right(features[n:], chosen_classes, even, features[:n], drawn_classes, classes)[:, 0]
    found = _needed(by_draw, by_choice, is_judged, np.ones(n), range(_SPLITS), sizes, len(chosen))
    ends = sorted(
        _needed(
            by_draw, by_choice, is_judged, random.multinomial(n, np.full(n, 1 / n)).astype(float),
            random.integers(0, _SPLITS, _SPLITS).tolist(), sizes, len(chosen),
        )[1]
        for _ in range(_DRAWS)
    )  # fmt: skip
    accuracy, needed = found
    low, high = (ends[round(at * (_DRAWS - 1))] for at in (0.025, 0.975))
    return Saving(len(chosen), accuracy, *(None if np.isinf(one) else int(one) for one in (needed, low, high)))


def _right(
    rows: torch.Tensor,
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    judged: torch.Tensor,
    truth: NDArray[np.int64],
    classes: int,
) -> NDArray[np.bool_]:
    """Whether each item (n,) is judged rightly by the fit of each problem (P,): (penalties, P, n)."""
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()[:, None]
    found = []
    for penalty in _PENALTIES:
        penalties = torch.full((weights.shape[1],), penalty * rows.shape[1])
        fit = solve(rows, targets, torch.from_numpy(weights), penalties, tolerance=1e-3, max_iterations=60)
        logits = torch.einsum("nr,rpk->pnk", judged, fit.weights) + fit.bias[:, None]
        found.append(logits.argmax(dim=2).numpy() == truth)
    return np.stack(found)


def _needed(
    by_draw: NDArray[np.bool_],
    by_choice: NDArray[np.bool_],
    is_judged: NDArray[np.bool_],
    times: NDArray[np.float64],
    splits: Sequence[int],
    sizes: Sequence[int],
    labels: int,
) -> tuple[float, float]:
    """The chosen labels' accuracy and how many drawn ones reach it (infinite: too many), each item so many `times`."""
    share = is_judged[list(splits)] * times
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    target = max(float((right * share).sum(axis=1).mean()) for right in by_choice)  # the better penalty
    curves = np.einsum("pstn,sn->pst", by_draw[:, list(splits)], share)
    best = curves.mean(axis=1).argmax(axis=0)
    accuracies = np.stack([curves[best[step], :, step] for step in range(len(sizes))], axis=1)
    needed = labels_for(sizes, accuracies, target, MOST_TIMES * labels)
    return target, np.inf if needed is None else float(needed)

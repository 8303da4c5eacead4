"""Whether a head does better for asking an item's neighbours: judged on labels that the folds did not see."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from backend.learning.calibration import MIN_SAMPLES, fit_temperature
from backend.learning.candidates import Candidate, Fitted, Labelled, Unlabelled, judge
from backend.learning.heads import Head
from backend.learning.neighbour_heads import NeighbourHead
from backend.learning.neighbours import as_rows

_BLOCK_ROWS = 256  # times 15 neighbours
_READ_ROWS = 8_192


@dataclass(frozen=True, eq=False)
class Heard:
    """How a fit does on held-out labels where it asks: calibrated logits (m, K) of own and neighbours' mean."""

    fitted: Fitted
    candidate: Candidate
    logits: NDArray[np.float32]
    sharpness: float


def hear(
    labelled: Labelled, pool: Unlabelled, fits: Sequence[Fitted], moments: tuple[Tensor, Tensor]
) -> tuple[Heard, ...]:
    """Ask each fold's linear heads about the neighbours of the labels that the fold did not see.

    `moments` (d,) are mean and deviation of the features. Nothing where nothing was held out or there is nobody to ask.
    """
    linear = [one for one in fits if one.hidden is None]
    held_out = np.flatnonzero(labelled.fold >= 0)
    near = pool.graph.columns[pool.labelled[held_out]]
    if pool.neighbourhood is None or not linear or not near.size:
        return ()
    said = [softmax(one.logits / one.temperature, axis=1) for one in linear]
    folds = torch.from_numpy(labelled.fold[held_out])
    for start in range(0, len(near), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        read = pool.neighbourhood.read(pool.graph.keys[near[rows].ravel()])
        features = (as_rows(read) - moments[0]) / moments[1]
        for one, answers in zip(linear, said, strict=True):
            answers[rows] += _neighbours_say(one, features, folds[rows])
    return tuple(_judged(labelled, one, answers / 2) for one, answers in zip(linear, said, strict=True))


def _neighbours_say(fitted: Fitted, features: Tensor, folds: Tensor) -> NDArray[np.float32]:
    """Mean probabilities (b, K) of each row's neighbours, features (b k, d), by the head of the row's fold (b,)."""
    logits = (torch.einsum("nd,dpk->npk", features, fitted.weights) + fitted.bias) / fitted.temperature
    answers = torch.softmax(logits, dim=2).view(len(folds), -1, *logits.shape[1:])
    mean: NDArray[np.float32] = answers[torch.arange(len(folds)), :, folds].mean(dim=1).numpy()
    return mean


def _judged(labelled: Labelled, fitted: Fitted, mixed: NDArray[np.float32]) -> Heard:
    logits = np.log(np.maximum(mixed, np.finfo(np.float32).tiny)).astype(np.float32)
    enough = len(logits) >= MIN_SAMPLES
    sharpness = fit_temperature(logits, labelled.labels[labelled.fold >= 0]) if enough else 1.0
    candidate = judge(labelled, logits, "neighbours", fitted.penalty)
    return Heard(fitted, candidate, logits / np.float32(sharpness), sharpness)


def listening(head: Head, pool: Unlabelled, heard: Heard) -> NeighbourHead:
    """The head that asks, with its own answers for every item of the neighbourhood."""
    assert pool.neighbourhood is not None
    anchors, nodes = pool.neighbourhood.anchors, pool.neighbourhood.nodes
    opinions = np.empty((len(nodes), len(head.classes)), np.float32)
    for start in range(0, len(nodes), _READ_ROWS):
        rows = slice(start, start + _READ_ROWS)
        opinions[rows] = head.predict(pool.neighbourhood.read(pool.graph.keys[nodes[rows]]))
    unknown = ~np.isfinite(opinions).all(axis=1)
    opinions[unknown] = 1 / len(head.classes)
    return NeighbourHead(
        head.classes, head.mean, head.scale, head.weights, head.bias, head.temperature,
        projection=anchors.projection, offset=anchors.offset, centres=anchors.centres, starts=anchors.starts,
        codes=anchors.codes, opinions=opinions, sharpness=np.array([heard.sharpness], np.float32),
    )  # fmt: skip

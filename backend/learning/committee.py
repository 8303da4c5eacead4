"""Plausible heads: what the labels leave open, without an encoder pass. Of a perceptron, its last layer is doubted."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from backend.learning.folds import deal
from backend.learning.heads import Head
from backend.learning.laplace import deviations
from backend.learning.logistic import Solution, solve

Source = Literal["bootstrap", "dropout", "laplace"]
"""Where plausible heads come from."""

_PARTS = 5
_CHUNK_BYTES = 64 * 2**20


def plausible(
    source: Source,
    head: Head,
    embeddings: NDArray[np.floating],
    labels: NDArray[np.integer],
    penalty: float,
    members: int = 10,
    seed: int = 0,
) -> tuple[Head, ...]:
    """`members` heads that the labels allow beside ``head``: embeddings (l, d), class indices (l,) of its classes.

    What the head hears from neighbours is left out: they would repeat its one opinion.
    """
    head = head.own
    if source == "dropout":
        return dropout(head, members, seed)
    if source == "laplace":
        return laplace(head, embeddings, labels, penalty, members, seed)
    return bootstrap(head, embeddings, labels, penalty, members, seed)


def bootstrap(
    head: Head,
    embeddings: NDArray[np.floating],
    labels: NDArray[np.integer],
    penalty: float,
    members: int = 10,
    seed: int = 0,
) -> tuple[Head, ...]:
    """Heads fitted to reweighted labels: embeddings (l, d), class indices (l,) into ``head.classes``.

    Each member weighs the labels by a draw from a flat Dirichlet, so that no class vanishes from any; all are fitted
    side by side, with the `penalty` per feature, the moments and the temperature of ``head``. A class without a label
    has the logit that it has in ``head``.

    Rubin, *The Bayesian bootstrap*, Annals of Statistics 1981.
    """
    draws = np.random.default_rng(seed).dirichlet(np.ones(len(labels)), size=members)
    return _fitted(head, embeddings, labels, penalty, draws.T)


def dropout(head: Head, members: int = 10, seed: int = 0, rate: float = 0.5) -> tuple[Head, ...]:
    """Heads that each lack a random part of the features, the rest scaled up: the same part for every item.

    A feature that is dropped is at its mean. It asks the head and not the labels, so it costs no fit, and it doubts no
    less where there are more labels. Gal & Ghahramani, *Dropout as a Bayesian approximation*, ICML 2016, 1506.02142.
    """
    kept = np.random.default_rng(seed).random((members, len(head.weights), 1)) >= rate
    return tuple(replace(head, weights=head.weights * (mask / (1 - rate)).astype(np.float32)) for mask in kept)


def laplace(
    head: Head,
    embeddings: NDArray[np.floating],
    labels: NDArray[np.integer],
    penalty: float,
    members: int = 10,
    seed: int = 0,
) -> tuple[Head, ...]:
    """Heads drawn from the Gaussian around ``head`` with the curvature of its loss on embeddings (l, d).

    The `penalty` per feature is the prior, as in the fit. The head is taken as the most probable one, though one that
    was fitted to propagated labels is not quite that. A class without a label keeps its logit.

    Daxberger et al., *Laplace redux: effortless Bayesian deep learning*, NeurIPS 2021, 2106.14806.
    """
    seen = np.unique(labels)
    features = torch.from_numpy(head.reaches(embeddings))
    weights, bias = torch.from_numpy(head.weights[:, seen]), torch.from_numpy(head.bias[seen])
    chances = torch.softmax(features @ weights + bias, dim=1)
    precision = penalty * features.shape[1] * len(features)
    moved, shifted = deviations(features, chances, precision, members, seed)
    heads = []
    for member in range(members):
        columns, biases = head.weights.copy(), head.bias.copy()
        columns[:, seen] += moved[:, member].numpy()
        biases[seen] += shifted[member].numpy()
        heads.append(replace(head, weights=columns, bias=biases))
    return tuple(heads)


def held_out(
    head: Head, embeddings: NDArray[np.floating], labels: NDArray[np.integer], penalty: float, seed: int = 0
) -> NDArray[np.float32]:
    """What a head that was not fitted to it says of each labelled item: probabilities (l, K), in five parts.

    The parts are fitted as the members of a committee are; an item alone in its class is held out like the others.
    """
    head = head.own  # its neighbours' opinions know the labels
    part = deal(np.asarray(labels, np.int64), _PARTS, seed)
    weights = (part[:, None] != np.arange(_PARTS)).astype(np.float64)
    heads = _fitted(head, embeddings, labels, penalty, weights / np.maximum(weights.sum(axis=0), 1))
    answers = np.empty((len(labels), len(head.classes)), np.float32)
    for number, member in enumerate(heads):
        answers[part == number] = member.predict(embeddings[part == number])
    return answers


def samples(heads: tuple[Head, ...], embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Probabilities (T, n, K) of T heads for embeddings (n, d), which are read once, in chunks.

    Heads with a hidden layer share it: they differ in what is behind it.
    """
    classes = len(heads[0].classes)
    weights = torch.from_numpy(np.concatenate([head.folded[0] for head in heads], axis=1))
    bias = torch.from_numpy(np.concatenate([head.folded[1] for head in heads]))
    answers = np.empty((len(heads), len(embeddings), classes), np.float32)
    step = max(1, _CHUNK_BYTES // (4 * (embeddings.shape[1] + len(bias))))
    for start in range(0, len(embeddings), step):
        rows = slice(start, start + step)
        chunk = torch.from_numpy(np.array(heads[0].linear_inputs(embeddings[rows]), dtype=np.float32))
        logits = torch.addmm(bias, chunk, weights).view(len(chunk), len(heads), classes)
        answers[:, rows] = torch.softmax(logits, dim=2).transpose(0, 1).numpy()
    return answers


def _fitted(
    head: Head,
    embeddings: NDArray[np.floating],
    labels: NDArray[np.integer],
    penalty: float,
    row_weights: NDArray[np.floating[Any]],
) -> tuple[Head, ...]:
    """A head for each column of the labels' weights (l, T), each column summing to one."""
    features = torch.from_numpy(head.reaches(embeddings))
    seen, own = np.unique(labels, return_inverse=True)
    targets = torch.nn.functional.one_hot(torch.from_numpy(own), len(seen)).float()[:, None]
    weights = torch.from_numpy(row_weights.astype(np.float32))
    penalties = torch.full((row_weights.shape[1],), penalty * features.shape[1])
    solved = solve(features, targets, weights, penalties, tolerance=1e-3, max_iterations=60)
    return tuple(_head(head, seen, solved, member) for member in range(row_weights.shape[1]))


def _head(head: Head, seen: NDArray[np.int64], solved: Solution, member: int) -> Head:
    columns, bias = np.zeros_like(head.weights), head.bias.copy()
    columns[:, seen] = solved.weights[:, member] - solved.weights[:, member].mean(dim=1, keepdim=True)
    bias[seen] = solved.bias[member] - solved.bias[member].mean()
    return replace(head, weights=columns, bias=bias)

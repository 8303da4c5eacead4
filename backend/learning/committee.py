"""A committee of heads: what the labels leave open, without an encoder pass."""

import numpy as np
import torch
from numpy.typing import NDArray

from backend.learning.heads import Head
from backend.learning.logistic import solve


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
    features = torch.from_numpy((np.asarray(embeddings, np.float32) - head.mean) / head.scale)
    seen, own = np.unique(labels, return_inverse=True)
    targets = torch.nn.functional.one_hot(torch.from_numpy(own), len(seen)).float()[:, None]
    draws = np.random.default_rng(seed).dirichlet(np.ones(len(own)), size=members)
    weights = torch.from_numpy(draws.T.astype(np.float32))
    penalties = torch.full((members,), penalty * features.shape[1])
    solved = solve(features, targets, weights, penalties, tolerance=1e-3, max_iterations=60)
    heads = []
    for member in range(members):
        columns = np.zeros((features.shape[1], len(head.classes)), np.float32)
        bias = head.bias.copy()
        columns[:, seen] = solved.weights[:, member] - solved.weights[:, member].mean(dim=1, keepdim=True)
        bias[seen] = solved.bias[member] - solved.bias[member].mean()
        heads.append(Head(head.classes, head.mean, head.scale, columns, bias, head.temperature))
    return tuple(heads)


def samples(heads: tuple[Head, ...], embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Probabilities (T, n, K) of T heads for embeddings (n, d)."""
    return np.stack([head.predict(embeddings) for head in heads])

"""What several annotators' labels and a model together say of items."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-6
"""What a weight or an error is at least, as in the authors' code."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """quality: (m,) how sure the consensus label of each item is. annotators: (A,) weight of each annotator's vote.
    model: weight of the model's."""

    quality: NDArray[np.float64]
    annotators: NDArray[np.float64]
    model: float


def crowdlab(votes: NDArray[Any], probabilities: NDArray[Any]) -> Consensus:
    """CROWDLAB: votes (m, A), -1 where none, at least one a row and a column, and probabilities (m, K).

    Each weight is an agreement, adjusted for chance; the consensus is the class of highest weighted probability, after
    a first one by majority. With one vote each, nothing can be learnt of annotators: all weigh 1, and a label's quality
    is its probability. Goh, Tkachenko & Mueller, *CROWDLAB*, 2022, 2210.06812.
    """
    m, annotators = votes.shape
    classes = probabilities.shape[1]
    p = np.asarray(probabilities, dtype=np.float64)
    given = votes >= 0
    counts = np.zeros((m, classes))
    for a in range(annotators):
        counts[np.flatnonzero(given[:, a]), votes[given[:, a], a]] += 1
    many = given.sum(axis=1) > 1
    label = _majority(counts, p)
    if not many.any():
        return Consensus(p[np.arange(m), label], np.ones(annotators), 1.0)
    posterior, weights, model = _posterior(votes, given, counts, p, label, many)
    best = posterior.max(axis=1)
    label = np.where((posterior == best[:, None]).sum(axis=1) == 1, posterior.argmax(axis=1), label)
    posterior, weights, model = _posterior(votes, given, counts, p, label, many)
    return Consensus(posterior[np.arange(m), label], weights, model)


def _majority(counts: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of most votes; of equals the more probable, then the rarer, then the lower."""
    rarity = -counts.sum(axis=0)
    most = counts == counts.max(axis=1, keepdims=True)
    likely = np.where(most, p, -1.0)
    likely = likely == likely.max(axis=1, keepdims=True)
    label: NDArray[np.int64] = np.where(likely, rarity, -np.inf).argmax(axis=1)
    return label


def _posterior(
    votes: NDArray[Any],
    given: NDArray[np.bool_],
    counts: NDArray[np.float64],
    p: NDArray[np.float64],
    label: NDArray[np.int64],
    many: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The weighted probabilities (m, K), the annotators' weights (A,), the model's."""
    (m, classes), each = counts.shape, given.sum(axis=1)
    agree = (counts[np.arange(m), label] / each)[many].mean()
    differ = (1 - agree) / max(1, classes - 1)
    chance = max(_LEAST, float(np.mean(label[many] != np.bincount(label[many]).argmax())))
    agreement = np.full(votes.shape[1], np.nan)
    for a in range(votes.shape[1]):
        rows = np.flatnonzero(given[:, a] & many)
        if len(rows):
            agreement[a] = (counts[rows, votes[rows, a]] - 1).sum() / (each[rows] - 1).sum()
    agreement[np.isnan(agreement)] = np.nanmean(agreement)
    weights = np.maximum(1 - (1 - agreement) / chance, _LEAST)
    wrong = float(np.mean(p[many].argmax(axis=1) != label[many]))
    model = max(1 - wrong / chance, _LEAST) * float(np.sqrt(each.mean()))
    posterior = p * model
    total = given @ weights
    for a in range(votes.shape[1]):
        rows = np.flatnonzero(given[:, a])
        posterior[rows, votes[rows, a]] += weights[a] * (agree - differ)
    posterior += (differ * total)[:, None]
    posterior /= (total + model)[:, None]
    return posterior, weights, model

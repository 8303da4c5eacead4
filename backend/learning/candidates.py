"""Ways to fit a linear head, each judged by the same folds: on labels alone, or on labels spread over the pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.learning.anchors import Anchors
from backend.learning.calibration import MIN_SAMPLES, fit_temperature, log_loss
from backend.learning.logistic import solve
from backend.learning.neighbours import Graph, Keys, Read
from backend.learning.propagation import affinity, propagate

Method = Literal["logistic", "propagation", "neighbours", "mlp", "one-vs-rest", "ridge"]

# Penalties per feature: the best one moved from 1e-5 to 1e-3 between 100 and 5,000 labels of CIFAR-10.
PENALTIES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
DEFAULT_PENALTY = 1e-4
_SOFT_ROWS = 8_000
_SOFT_RANK = 512
_LABEL_SHARE = 0.3  # of what a fit to soft targets weighs; each row alike cost 1 point at 500 labels of CIFAR-10
_EVEN_LABELS = 2_000  # from here on the labels weigh more than the pool
_AGREEMENTS = 8  # at 100 labels of CIFAR-10 one gave 4.8 points, three 7.2, five 7.8, eight 8.0


@dataclass(frozen=True)
class Candidate:
    """One way to fit and how it did on labels it had not seen: accuracy in [0, 1], calibrated log loss in nats."""

    method: Method
    penalty: float
    accuracy: float
    log_loss: float


@dataclass(frozen=True, eq=False)
class Labelled:
    """Standardised ``features`` (l, d); ``labels`` (l,) among the classes seen; ``fold`` (l,), -1 never held out."""

    features: Tensor
    labels: NDArray[np.int64]
    fold: NDArray[np.int64]
    folds: int
    class_weights: Tensor

    @property
    def classes(self) -> int:
        return len(self.class_weights)

    def targets(self) -> Tensor:
        """One-hot labels, (l, classes) float32."""
        return torch.nn.functional.one_hot(torch.tensor(self.labels), self.classes).float()

    def parts(self) -> Tensor:
        """The rows that each fold trains on and, last, all rows: (l, folds + 1) float32 of 0 and 1."""
        keep = [self.fold != part for part in range(self.folds)]
        return torch.tensor(np.stack([*keep, np.ones(len(self.fold), bool)], axis=1)).float()


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The pool as a head can ask it: `nodes` (m,) are the graph's nodes that the anchors are, `read` embeds them."""

    anchors: Anchors
    nodes: NDArray[np.int32]
    read: Read


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """What the pool lends to a fit: `graph`, the nodes (l,) in it of the labelled rows, and a sample of the others.

    sample: (s,) int64 nodes. embeddings: (s, d) float32, theirs. Without a neighbourhood no head asks neighbours.
    """

    graph: Graph
    labelled: NDArray[np.int64]
    sample: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    neighbourhood: Neighbourhood | None = None

    @classmethod
    def draw(cls, graph: Graph, labelled: Keys, read: Read, seed: int, *, is_whole: bool = True) -> "Unlabelled":
        """At most 8,000 nodes without a label, drawn by `seed`; `labelled` (l,) are the labelled rows' keys.

        is_whole: whether the graph holds all of the pool, and not a sample, in which neighbours are too far to ask.
        """
        nodes = graph.find(labelled)
        others = np.setdiff1d(np.arange(len(graph)), nodes)
        chosen = np.random.default_rng(seed).permutation(len(others))[:_SOFT_ROWS]
        sample = others[np.sort(chosen)]
        embeddings = np.asarray(read(graph.keys[sample])).astype(np.float32)
        finite = np.isfinite(embeddings).all(axis=1)
        asked = Neighbourhood(*graph.cells, read) if is_whole else None
        return cls(graph, nodes, sample[finite], embeddings[finite], asked)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights (d, P, K) and biases (P, K) of the folds and, last, of the fit to all rows; and the folds' verdict.

    ``logits`` (m, K) are those of the ``rows`` (m,) that were held out, by the fold that did not see them. A perceptron
    has weights (h, 1, K) behind a ``hidden`` layer (d, h) with bias (h,).
    """

    method: Method
    penalty: float
    weights: Tensor
    bias: Tensor
    temperature: float
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    candidates: tuple[Candidate, ...]
    hidden: tuple[Tensor, Tensor] | None = None

    @property
    def best_loss(self) -> float:
        return min((candidate.log_loss for candidate in self.candidates), default=np.inf)


def fit_logistic(labelled: Labelled, among: Sequence[float] = PENALTIES) -> Fitted:
    """Logistic regression on the labels; the penalty `among` these has the lowest calibrated log loss over the folds.

    Without folds it is the one that is given, or the usual one of several.
    """
    features, basis = uncorrelated(labelled.features)
    scale = float(labelled.features.shape[1])
    weights = _normalised(labelled.parts() * (labelled.targets() @ labelled.class_weights)[:, None])
    targets = labelled.targets()[:, None]
    penalty, candidates = among[0] if len(among) == 1 else DEFAULT_PENALTY, []
    fold_weights = torch.zeros(features.shape[1], 0, labelled.classes)
    fold_bias = torch.zeros(0, labelled.classes)
    if labelled.folds:
        penalties = torch.tensor(among).repeat_interleave(labelled.folds) * scale
        tiled = weights[:, : labelled.folds].repeat(1, len(among))
        tried = solve(features, targets, tiled, penalties, tolerance=1e-3, max_iterations=60)
        spans = [slice(at, at + labelled.folds) for at in range(0, len(penalties), labelled.folds)]
        for value, span in zip(among, spans, strict=True):
            _, logits = _held_out(labelled, features, tried.weights[:, span], tried.bias[span])
            candidates.append(judge(labelled, logits, "logistic", value))
        best = min(range(len(candidates)), key=lambda at: candidates[at].log_loss)
        penalty, span = among[best], spans[best]
        fold_weights, fold_bias = tried.weights[:, span], tried.bias[span]
    full = solve(features, targets, weights[:, -1:], torch.tensor([penalty * scale]))
    rotated = torch.cat([fold_weights, full.weights], dim=1)
    return _fitted(
        labelled,
        "logistic",
        penalty,
        (basis @ rotated.flatten(1)).view(-1, *rotated.shape[1:]),
        torch.cat([fold_bias, full.bias]),
        tuple(candidates),
    )


def fit_propagation(labelled: Labelled, pool: Unlabelled, features: Tensor, logistic: Fitted) -> Fitted:
    """Logistic regression on soft targets: what the labels' neighbours and the logistic head agree on.

    A target is ``p(class | graph) p(class | embedding) / p(class)``, two witnesses taken as independent, for the
    labels and the pool's sample, whose standardised embeddings are `features` (s, d); so the head stays inductive.
    The head so fitted is the second witness the next time, `_AGREEMENTS` times in all. Each fold spreads its own
    labels only. docs/learning.md has what was compared with it, and how firmly.
    """
    rows = torch.cat([labelled.features, features])
    basis = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors.flip(1)[:, :_SOFT_RANK]
    reduced = rows @ basis
    parts = labelled.parts()
    logits = torch.einsum("nd,dpk->npk", rows, logistic.weights) + logistic.bias
    logits /= logistic.temperature
    known = labelled.targets()[:, None] * parts[:, :, None]
    evidence = _evidence(pool, known)
    seen = torch.cat([parts, torch.ones(len(features), parts.shape[1])])
    penalties = torch.full((parts.shape[1],), DEFAULT_PENALTY * rows.shape[1])
    theta: Tensor | None = None
    for _ in range(_AGREEMENTS):
        targets = torch.softmax(logits + evidence, dim=2)
        certain = known.sum(dim=2) > 0
        targets[: len(known)][certain] = known[certain]
        row_weights = _shared(seen * (targets @ labelled.class_weights), len(known))
        tolerance, iterations = (1e-2, 40) if theta is None else (1e-2, 8)
        solved = solve(reduced, targets, row_weights, penalties, tolerance, iterations, theta)
        theta = torch.cat([solved.weights, solved.bias[None]])
        logits = torch.einsum("nr,rpk->npk", reduced, solved.weights) + solved.bias
    weights = (basis @ solved.weights.flatten(1)).view(-1, *solved.weights.shape[1:])
    unjudged = _fitted(labelled, "propagation", DEFAULT_PENALTY, weights, solved.bias, ())
    if not labelled.folds:
        return unjudged
    candidate = judge(labelled, unjudged.logits, "propagation", DEFAULT_PENALTY)
    return _fitted(labelled, "propagation", DEFAULT_PENALTY, weights, solved.bias, (candidate,))


def _evidence(pool: Unlabelled, known: Tensor) -> Tensor:
    """``log p(class | graph) / p(class)``, (l + s, P, K), of the labelled rows and the sample.

    Each part spreads its own labels: `known` (l, P, K), one-hot, 0 where the part does not see them.
    """
    links = affinity(pool.graph)
    nodes = np.concatenate([pool.labelled, pool.sample])
    evidence = torch.empty(len(nodes), *known.shape[1:])
    for part in range(known.shape[1]):
        sources = np.zeros((len(pool.graph), known.shape[2]), np.float32)
        np.add.at(sources, pool.labelled, known[:, part].numpy())
        spread = torch.from_numpy(propagate(links, sources)[nodes])
        counts = known[:, part].sum(dim=0)
        prior = (counts + 1) / (counts.sum() + len(counts))
        reached = spread.sum(dim=1, keepdim=True)
        graph = torch.where(reached > 1e-12, spread / reached.clamp_min(1e-12), prior).clamp_min(1e-6)
        evidence[:, part] = (graph / prior).log()
    return evidence


def uncorrelated(features: Tensor) -> tuple[Tensor, Tensor]:
    """Rotated features (l, r), whose columns are uncorrelated, and the basis (d, r): ``features @ basis``.

    Nothing is lost: a penalised fit lies in the span of its rows. With fewer rows than features, r <= l.
    """
    if len(features) >= features.shape[1]:
        basis = torch.linalg.eigh(features.T @ features).eigenvectors
        return features @ basis, basis
    values, vectors = torch.linalg.eigh((features @ features.T).double())
    keep = values > 1e-9 * values[-1].clamp_min(1e-30)
    if not keep.any():
        return torch.zeros(len(features), 1), torch.zeros(features.shape[1], 1)
    basis = (features.T.double() @ (vectors[:, keep] / values[keep].sqrt())).float()
    return (vectors[:, keep] * values[keep].sqrt()).float(), basis


def _normalised(row_weights: Tensor) -> Tensor:
    return row_weights / row_weights.sum(dim=0, keepdim=True)


def _shared(row_weights: Tensor, labels: int) -> Tensor:
    """Weights (l + s, P), each column summing to 1, of which the first `labels` rows have their share."""
    share = max(_LABEL_SHARE, labels / (labels + min(_EVEN_LABELS, len(row_weights) - labels)))
    known, soft = _normalised(row_weights[:labels]), _normalised(row_weights[labels:])
    return torch.cat([share * known, (1 - share) * soft])


def _held_out(
    labelled: Labelled, features: Tensor, weights: Tensor, bias: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows held out once, (m,), and their logits (m, K) by the fold that did not train on them."""
    rows = np.flatnonzero(labelled.fold >= 0)
    logits = np.empty((len(rows), labelled.classes), np.float32)
    for part in range(labelled.folds):
        mine = labelled.fold[rows] == part
        logits[mine] = (features[rows[mine]] @ weights[:, part] + bias[part]).numpy()
    return rows, logits


def judge(labelled: Labelled, logits: NDArray[np.float32], method: Method, penalty: float) -> Candidate:
    labels = labelled.labels[labelled.fold >= 0]
    loss = log_loss(logits, labels, fit_temperature(logits, labels))
    return Candidate(method, penalty, float((logits.argmax(axis=1) == labels).mean()), loss)


def _fitted(
    labelled: Labelled,
    method: Method,
    penalty: float,
    weights: Tensor,
    bias: Tensor,
    candidates: tuple[Candidate, ...],
) -> Fitted:
    rows, logits = _held_out(labelled, labelled.features, weights, bias)
    enough = len(rows) >= MIN_SAMPLES
    temperature = fit_temperature(logits, labelled.labels[rows]) if enough else 1.0
    return Fitted(method, penalty, weights, bias, temperature, rows, logits, candidates)

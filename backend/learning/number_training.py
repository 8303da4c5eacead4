"""Fitting a head for numbers: ridge regression in closed form, and how far off it may be."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import NothingToLearnFrom, UnusableTrainingData
from backend.learning.calibration import MIN_SAMPLES
from backend.learning.candidates import Candidate, uncorrelated
from backend.learning.number_heads import NumberHead, limits_of
from backend.learning.training import FitReport, OutOfFold, moments
from backend.questions import NUMBER, Scale

_PENALTIES = np.logspace(-3, 4, 29)
"""Times the mean square of a direction in which the embeddings vary."""
_DIRECTIONS = 256  # eigenvectors that a deviation knows; beyond, it is the prior's, which is larger


def fit_numbers(
    embeddings: NDArray[Any],
    numbers: NDArray[np.float64],
    scale: Scale,
    *,
    familiar: NDArray[np.bool_] | None = None,
) -> FitReport:
    """Fit a head to embeddings (l, d) float16/32 with ``numbers`` (l,).

    The penalty has the least generalised cross-validation error. What each label's own fit without it would have said
    follows in closed form, and from 50 such labels on makes the deviations honest by one factor; the `familiar` rows,
    on which the encoder was trained, take no part in that. ``penalty`` of the report is per feature and label. The same
    arguments give the same bits on one machine with one number of threads. O(l · d · min(l, d)). Raises
    NothingToLearnFrom, UnusableTrainingData.

    Golub, Heath & Wahba, *Generalized cross-validation as a method for choosing a good ridge parameter*, Technometrics
    1979; MacKay, *Bayesian interpolation*, Neural Computation 1992 (the deviation).
    """
    started = time.perf_counter()
    if embeddings.ndim != 2 or numbers.shape != (len(embeddings),):
        raise UnusableTrainingData(problem=f"embeddings have the shape {embeddings.shape} and numbers {numbers.shape}")
    found = np.array(embeddings, dtype=np.float32)
    finite = np.asarray(np.isfinite(found).all(axis=1) & np.isfinite(numbers))
    if not finite.any():
        raise NothingToLearnFrom()
    features, y = torch.from_numpy(found[finite]), numbers[finite].astype(np.float64)
    mean, deviation = moments(features)
    rotated, directions = uncorrelated((features - mean) / deviation)
    z, basis = rotated.double().numpy(), directions.double().numpy()
    z = z - z.mean(axis=0)
    squares, centre, count = np.square(z).sum(axis=0), float(y.mean()), len(y)
    aim = y - centre
    along = z.T @ aim
    alphas = _PENALTIES * max(float(squares.mean()), 1e-12)
    errors = [_gcv(z, squares, along, aim, alpha) for alpha in alphas]
    alpha = float(alphas[int(np.argmin(errors))])
    shrunk = 1 / (squares + alpha)
    residual = aim - z @ (shrunk * along)
    hat = 1 / count + np.square(z) @ shrunk
    freedom = max(count - float(1 + (squares * shrunk).sum()), 1.0)
    noise = float(np.sqrt(np.square(residual).sum() / freedom))
    left = np.clip(1 - hat, 1e-6, None)
    unseen = np.stack([y - residual / left, noise / np.sqrt(left)], axis=1)
    judged = np.flatnonzero(np.ones(count, bool) if familiar is None else ~familiar[finite])
    is_enough = len(judged) >= MIN_SAMPLES and noise > 0
    apart = np.abs(y - unseen[:, 0])[judged] / np.maximum(unseen[judged, 1], 1e-12)
    factor = float(np.clip(np.sqrt(np.square(apart).mean()), 0.05, 20)) if is_enough else 1.0
    unseen[:, 1] *= factor
    order = np.argsort(-squares, kind="stable")[:_DIRECTIONS]
    weights = basis @ (shrunk * along)
    head = NumberHead(
        NUMBER,
        mean.numpy(),
        deviation.numpy(),
        weights[:, None].astype(np.float32),
        np.array([centre], np.float32),
        factor,
        basis=basis[:, order].astype(np.float32),
        shrinkage=(1 / alpha - shrunk[order]).astype(np.float32),
        noise=np.array([noise, alpha, count, y.std()], np.float32),
        limits=limits_of(scale),
    )
    return FitReport(
        head=head,
        method="ridge",
        penalty=alpha / (count * found.shape[1]),
        chosen_by="cross-validation",
        folds=0,
        candidates=tuple(
            Candidate("ridge", one / (count * found.shape[1]), 0.0, error)
            for one, error in zip(alphas.tolist(), errors, strict=True)
        ),
        out_of_fold=OutOfFold(np.flatnonzero(finite)[judged], unseen[judged].astype(np.float32)),
        calibrated=is_enough,
        labels=count,
        classes_seen=len(np.unique(y)),
        dropped=int((~finite).sum()),
        graph_nodes=0,
        neighbours=0,
        seconds=time.perf_counter() - started,
    )


def _gcv(
    z: NDArray[np.float64],
    squares: NDArray[np.float64],
    along: NDArray[np.float64],
    aim: NDArray[np.float64],
    alpha: float,
) -> float:
    """Generalised cross-validation's mean square error, of rotated features (l, r) with uncorrelated columns."""
    residual = aim - z @ (along / (squares + alpha))
    free = 1 - (1 + (squares / (squares + alpha)).sum()) / len(aim)
    return float(np.square(residual).mean() / max(free, 1e-6) ** 2)

"""Temperature: one number that makes a classifier's confidence honest."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

MIN_SAMPLES = 50
_BOUNDS = (np.log(0.05), np.log(20.0))


def log_loss(logits: NDArray[Any], labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood (nats) of ``labels`` (n,) under logits (n, K) divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The temperature in [0.05, 20] with the lowest log loss on logits (n, K) that the fit has not seen.

    The loss is convex in 1 / temperature, so the bounded search finds the optimum. Fewer than 50 samples would
    fit noise: callers then keep 1.

    Guo, Pleiss, Sun & Weinberger, *On calibration of modern neural networks*, ICML 2017.
    """
    found = minimize_scalar(
        lambda log_t: log_loss(logits, labels, float(np.exp(log_t))),
        bounds=_BOUNDS,
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))

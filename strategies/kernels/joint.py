"""What labels tell about each other: from the probabilities (T, n, K) of T plausible heads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.kernels.blocks import CACHE_BYTES, blocks
from strategies.kernels.pointwise import plogp


def predictive_information(
    samples: NDArray[Any], rows: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The mean over target rows x* of I(y; y*) of each of `rows`, in nats, as (len(rows),) float32.

    By H(y) + H(y*) - H(y, y*). Products are float64, rounded before the logarithm, so that equal rows tie.
    """
    heads, _, classes = samples.shape
    others = samples[:, targets].astype(np.float64)
    theirs = _entropy(others.mean(axis=0)).mean()
    aims = others.reshape(heads, -1) / heads
    result = np.zeros(len(rows), dtype=np.float32)
    step = 16 * CACHE_BYTES  # beyond the cache: with small products the threads of BLAS wait longer than they work
    for part in blocks(len(rows), 16 * classes * aims.shape[1], step):
        own = samples[:, rows[part]].astype(np.float64)
        joint = own.transpose(1, 2, 0).reshape(-1, heads) @ aims
        both = plogp(joint.astype(np.float32)).reshape(own.shape[1], -1).sum(axis=1, dtype=np.float64)
        result[part] = _entropy(own.mean(axis=0)) + theirs + both / len(targets)
    return result.clip(min=0)


def joint_information(
    samples: NDArray[Any], picks: int, configurations: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Greedily pick the rows whose labels together tell most about which head is right. samples (T, m, K), picks ≤ m.

    Returns the rows in order, the nats that each adds, and how many were chosen by the exact joint distribution.
    Picks end early when the batch tells 99 % of what there is to know, log T. Each pick adds the expectation, over the
    labels of the picks before it, of the mutual information that is left. Those labels are enumerated while there
    are at most `configurations` of them, and that many are drawn beyond. A pick costs m · configurations · K · T.
    """
    heads, m, classes = samples.shape
    exact = samples.astype(np.float64)
    own = -plogp(samples.astype(np.float32)).sum(axis=2, dtype=np.float64).mean(axis=0)
    belief: NDArray[np.float64] = np.full((1, heads), 1 / heads)
    weight: NDArray[np.float64] = np.ones(1)
    uniforms = np.random.Generator(np.random.PCG64(seed % 2**64))
    enumerated, known = True, 0.0
    order: list[int] = []
    gains: list[float] = []
    exact_picks = 0
    while len(order) < picks and known < 0.99 * np.log(heads):
        gain = np.empty(m, dtype=np.float32)
        for part in blocks(m, 16 * len(belief) * classes):
            predicted = belief @ exact[:, part].reshape(heads, -1)
            left = -(weight @ plogp(predicted.astype(np.float32)).astype(np.float64))
            gain[part] = left.reshape(-1, classes).sum(axis=1) - own[part]
        gain[order] = -np.inf
        best = int(gain.argmax())
        order.append(best)
        gains.append(float(gain[best]))
        known += gains[-1]
        exact_picks += enumerated
        likelihood = exact[:, best]
        enumerated = enumerated and len(belief) * classes <= configurations
        if enumerated:
            joint: NDArray[np.float64] = (belief[:, None] * likelihood.T).reshape(-1, heads)
            weight = np.repeat(weight, classes) * joint.sum(axis=1)
        else:
            source = _systematic(weight, configurations, uniforms.random())
            chances = np.cumsum(belief[source] @ likelihood, axis=1)
            drawn = (chances < uniforms.random((configurations, 1)) * chances[:, -1:]).sum(axis=1)
            joint = belief[source] * likelihood[:, drawn].T
            weight = np.full(configurations, 1 / configurations)
        possible = joint.sum(axis=1) > 0
        belief = joint[possible] / joint[possible].sum(axis=1, keepdims=True)
        weight = weight[possible] / weight[possible].sum()
    return np.array(order, dtype=np.int64), np.array(gains), exact_picks


def _systematic(weight: NDArray[np.float64], count: int, start: float) -> NDArray[np.int64]:
    """`count` places drawn in proportion to weights that sum to one, each as often as expected but for one."""
    points = (np.arange(count) + start) / count
    return np.minimum(np.searchsorted(np.cumsum(weight), points, side="right"), len(weight) - 1)


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, K) to (…), in nats."""
    entropy: NDArray[np.float64] = -plogp(probabilities.astype(np.float32)).sum(axis=-1, dtype=np.float64)
    return entropy

"""Greedy optimal design: which rows leave the least error, by the Fisher information that they bring."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def fisher(points: Matrix, weights: Matrix) -> Matrix:
    """Σ w x xᵀ over points (n, d) with weights (n,): (d, d)."""
    scaled = points * np.sqrt(weights)[:, None]
    information: Matrix = scaled.T @ scaled
    return information


def least_trace(
    points: Matrix, weights: Matrix, known: Matrix, wanted: Matrix, picks: int, forward: int
) -> tuple[NDArray[np.int64], Matrix, float]:
    """Rows S of points (n, d) that make tr[(known + Σ_S w x xᵀ)⁻¹ wanted] small: add the best one by one until there
    are `forward`, then take away the one that is missed least, until there are `picks`.

    known (d, d) positive definite, wanted (d, d) positive semidefinite, picks ≤ forward ≤ n. Returns the rows in the
    order in which they came in, what each took off the trace then, and the trace that is left. All by rank-one updates
    (Sherman & Morrison, 1950): a step costs n·d. Gains are compared as float32; ties go to the lower row.
    """
    n = len(points)
    inverse = np.linalg.inv(known)
    spread = np.einsum("nd,nd->n", points @ inverse, points)
    pull = np.einsum("nd,nd->n", points @ (inverse @ wanted @ inverse), points)
    picked: list[int] = []
    took = np.zeros(n)

    def update(row: int, sign: int) -> None:
        """Add (sign 1) or take away (sign -1) a row, and bring the inverse and both quadratic forms up to date."""
        nonlocal inverse, spread, pull
        along = inverse @ points[row]
        scale = sign * weights[row] / (1 + sign * weights[row] * spread[row])
        side = inverse @ (wanted @ along)
        reach, cross = points @ along, points @ side
        spread = spread - scale * reach**2
        pull = pull - 2 * scale * reach * cross + (scale * reach) ** 2 * (along @ wanted @ along)
        inverse = inverse - scale * np.outer(along, along)

    while len(picked) < forward:
        gain = (weights * pull / (1 + weights * spread)).astype(np.float32)
        gain[picked] = -np.inf
        best = int(gain.argmax())
        took[best] = gain[best]
        picked.append(best)
        update(best, 1)
    while len(picked) > picks:
        rows = np.array(picked)
        loss = (weights[rows] * pull[rows] / (1 - weights[rows] * spread[rows])).astype(np.float32)
        update(picked.pop(int(loss.argmin())), -1)
    return np.array(picked, dtype=np.int64), took[picked], float(np.trace(inverse @ wanted))

"""The head that says a number, and how far off it may be. Torch-free, as `heads` is."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.heads import Floats, Head
from backend.questions import Scale, number_label
from strategies import Task

_MOST = float(np.finfo(np.float32).max)


def _nothing() -> Floats:
    return np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class NumberHead(Head):
    """Bayesian linear regression on standardised embeddings z: a number and its predictive deviation.

    The number is ``z @ weights + bias``, for `weights` (d, 1). Its variance is ``noise[0]² (1 + 1/l + zᵀ A⁻¹ z)`` with
    ``A = ZᵀZ + αI`` of the l labels; ``temperature`` times its root is the deviation. ``noise`` (4,) is that of a
    label, α, l, and the deviation of all labels. ``basis`` (d, r) holds leading eigenvectors of A and ``shrinkage``
    (r,) ``1/α - 1/eigenvalue``. ``limits`` (3,) are lowest and highest number, and the step between them, 0 for none.
    The `classes` are "number" and "deviation": the columns of `predict`.
    """

    task = Task.REGRESSION
    form = "nextbatch-head-4"
    arrays = (*Head.arrays, "basis", "shrinkage", "noise", "limits")

    basis: Floats = field(default_factory=_nothing)
    shrinkage: Floats = field(default_factory=_nothing)
    noise: Floats = field(default_factory=_nothing)
    limits: Floats = field(default_factory=_nothing)

    def predict(self, embeddings: NDArray[Any]) -> Floats:
        """Numbers and their deviations, (n, 2) float32, as `Head.predict` reads and refuses embeddings."""
        out = np.empty((len(embeddings), 2), np.float32)
        label, alpha, count, _ = map(float, self.noise)
        for rows, number in self._chunks(embeddings):
            z = (np.asarray(embeddings[rows], np.float32) - self.mean) / self.scale
            with np.errstate(invalid="ignore", over="ignore"):  # a broken row is NaN, not a warning
                leverage = np.square(z).sum(axis=1) / alpha - np.square(z @ self.basis) @ self.shrinkage
                variance = label**2 * (1 + 1 / count + np.maximum(leverage, 0))
                out[rows, 0], out[rows, 1] = number[:, 0], self.temperature * np.sqrt(variance)
        return out

    def label_of(self, said: NDArray[Any]) -> str:
        """The number that people could give that is nearest, with four digits where any could be given."""
        number = Scale(*map(float, self.limits)).nearest(float(said[0]))
        return number_label(float(f"{number:.4g}") if not self.limits[2] else number)

    def confidence(self, said: NDArray[Any]) -> float:
        """Which part of the labels' deviation the head explains of this item, in [0, 1]."""
        return float(1 - self.doubts(said[None])[0])

    def doubts(self, said: NDArray[Any]) -> Floats:
        """(n,) in [0, 1]: the deviation beside that of all labels."""
        return np.clip(said[:, 1] / max(float(self.noise[3]), 1e-12), 0, 1).astype(np.float32)

    @property
    def _layers(self) -> tuple[tuple[Floats, Floats], ...]:
        """Without the temperature, which is the deviation's."""
        weights = self.weights.astype(np.float64) / self.scale[:, None].astype(np.float64)
        bias = self.bias.astype(np.float64) - self.mean.astype(np.float64) @ weights
        return ((weights.astype(np.float32), bias.astype(np.float32)),)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        d, r = self.mean.size, self.shrinkage.size
        own = {"weights": (d, 1), "bias": (1,), "basis": (d, r), "shrinkage": (r,), "noise": (4,), "limits": (3,)}
        return {**super()._shapes(), **own}

    def _problem(self) -> str | None:
        wrong = super()._problem()
        if wrong is None and not ((self.noise >= 0).all() and self.noise[1] > 0 and self.noise[2] >= 1):
            return "its noise is none"
        return wrong


def limits_of(scale: Scale) -> Floats:
    """A scale as a head keeps it: float32, all finite."""
    return np.array([max(scale.low, -_MOST), min(scale.high, _MOST), scale.step], np.float32)

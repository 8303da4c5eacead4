"""Draws around a logistic head with the curvature of its loss: the Laplace approximation, without its matrix."""

import torch
from torch import Tensor

_WORKSPACE_BYTES = 128 * 2**20
_BIAS_PRECISION = 1.0
"""The fit leaves biases free. A Gaussian needs some prior; one logit is wide."""
_TOLERANCE = 1e-3
_MOST_ITERATIONS = 300


def deviations(features: Tensor, chances: Tensor, precision: float, draws: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws of N(0, H⁻¹) for weights (r, T, K) and biases (T, K), H the Hessian of the head's loss, prior included.

    features (n, r) and chances (n, K), the head's probabilities of them, float32; `precision` is the prior's of every
    weight. H = Σ xxᵀ ⊗ (diag p - ppᵀ) + prior is the exact one, for the logits are linear, and r K × r K: it is never
    made. Noise that has H for its covariance, put through H⁻¹ by conjugate gradients, has H⁻¹ for its covariance. Some
    tens of passes of n r T K; a residual of a thousandth is left.

    Papandreou & Yuille, *Gaussian sampling by local perturbations*, NIPS 2010.
    """
    generator = torch.Generator().manual_seed(seed)
    curvature = _Curvature(features, chances, precision)
    group = max(1, _WORKSPACE_BYTES // (12 * (len(features) + features.shape[1]) * chances.shape[1]))
    found = [curvature.solve(curvature.noise(min(group, draws - first), generator)) for first in range(0, draws, group)]
    drawn = torch.cat(found, dim=1)
    return drawn[:-1], drawn[-1]


class _Curvature:
    """H as an operator on coefficients (r + 1, T, K), the last row being the bias."""

    def __init__(self, features: Tensor, chances: Tensor, precision: float) -> None:
        self.rows = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        self.chances = chances[:, None]
        prior = torch.full((self.rows.shape[1],), precision)
        prior[-1] = _BIAS_PRECISION
        self.prior = prior[:, None, None]
        self.diagonal = (self.rows.square().T @ (chances * (1 - chances)))[:, None] + self.prior

    def noise(self, draws: int, generator: torch.Generator) -> Tensor:
        """Gaussian, with covariance H."""
        classes = self.chances.shape[2]
        roots = torch.randn((len(self.rows), draws, classes), generator=generator) * self.chances.sqrt()
        prior = torch.randn((self.rows.shape[1], draws, classes), generator=generator) * self.prior.sqrt()
        return self._back(self._centred(roots)) + prior

    def solve(self, right: Tensor) -> Tensor:
        """H⁻¹ right, each of its T columns by itself."""
        found, residual = torch.zeros_like(right), right.clone()
        bar = _TOLERANCE**2 * _dot(right, right)
        scaled = residual / self.diagonal
        step, size = scaled.clone(), _dot(residual, scaled)
        for _ in range(_MOST_ITERATIONS):
            applied = self._times(step)
            length = size / _dot(step, applied).clamp_min(1e-30)
            found += length * step
            residual -= length * applied
            if bool((_dot(residual, residual) <= bar).all()):
                break
            scaled = residual / self.diagonal
            before, size = size, _dot(residual, scaled)
            step = scaled + size / before.clamp_min(1e-30) * step
        return found

    def _times(self, theta: Tensor) -> Tensor:
        logits = (self.rows @ theta.flatten(1)).view(len(self.rows), *theta.shape[1:])
        return self._back(self._centred(logits * self.chances)) + self.prior * theta

    def _centred(self, weighted: Tensor) -> Tensor:
        """(diag p - ppᵀ) z from p ∘ z; and from √p ∘ z, for standard normal z, noise with that covariance."""
        return weighted - self.chances * weighted.sum(dim=2, keepdim=True)

    def _back(self, logits: Tensor) -> Tensor:
        return (self.rows.T @ logits.flatten(1)).view(self.rows.shape[1], *logits.shape[1:])


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of T coefficients, (T, 1)."""
    return (one * other).sum(dim=(0, 2))[:, None]

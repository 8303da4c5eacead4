"""Arithmetic that strategies share: in blocks, never n × n, float32 in memory. Imported, as torch is, on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.kernels.clustering import kmeans, typicality
    from strategies.kernels.committee import consensus_entropy, deviation, information, largest_divergence, votes
    from strategies.kernels.covering import k_center
    from strategies.kernels.heads import boundary_distance, expected_residual, lengths, mean_cosine
    from strategies.kernels.herding import max_herding
    from strategies.kernels.pointwise import entropy, gini, residuals, top2
    from strategies.kernels.projection import Projection, distinct, fit_projection
    from strategies.kernels.sampling import d2_sampling, inclusion, systematic

__all__ = [
    "Projection",
    "boundary_distance",
    "consensus_entropy",
    "d2_sampling",
    "deviation",
    "distinct",
    "entropy",
    "expected_residual",
    "fit_projection",
    "gini",
    "inclusion",
    "information",
    "k_center",
    "kmeans",
    "largest_divergence",
    "lengths",
    "max_herding",
    "mean_cosine",
    "residuals",
    "systematic",
    "top2",
    "typicality",
    "votes",
]

_HOMES = {
    "clustering": ("kmeans", "typicality"),
    "committee": ("consensus_entropy", "deviation", "information", "largest_divergence", "votes"),
    "covering": ("k_center",),
    "heads": ("boundary_distance", "expected_residual", "lengths", "mean_cosine"),
    "herding": ("max_herding",),
    "pointwise": ("entropy", "gini", "residuals", "top2"),
    "projection": ("Projection", "distinct", "fit_projection"),
    "sampling": ("d2_sampling", "inclusion", "systematic"),
}
_HOME = {name: home for home, members in _HOMES.items() for name in members}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'strategies.kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"strategies.kernels.{_HOME[name]}"), name)

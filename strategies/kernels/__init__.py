"""Arithmetic that strategies share: in blocks, never n × n, float32 in memory. Imported, as torch is, on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.kernels.clustering import kmeans, typicality
    from strategies.kernels.covering import k_center
    from strategies.kernels.herding import max_herding
    from strategies.kernels.pointwise import entropy, top2
    from strategies.kernels.projection import Projection, distinct, fit_projection

__all__ = [
    "Projection",
    "distinct",
    "entropy",
    "fit_projection",
    "k_center",
    "kmeans",
    "max_herding",
    "top2",
    "typicality",
]

_HOMES = {
    "clustering": ("kmeans", "typicality"),
    "covering": ("k_center",),
    "herding": ("max_herding",),
    "pointwise": ("entropy", "top2"),
    "projection": ("Projection", "distinct", "fit_projection"),
}
_HOME = {name: home for home, members in _HOMES.items() for name in members}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'strategies.kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"strategies.kernels.{_HOME[name]}"), name)

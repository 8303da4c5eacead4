"""Arithmetic that strategies share: in blocks, never n × n, float32 in memory. Imported, as torch is, on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.kernels.annotators import Consensus, crowdlab
    from strategies.kernels.balls import ball_cover, pure_radius
    from strategies.kernels.bisection import Line
    from strategies.kernels.clustering import (
        MOST_CLUSTERED,
        in_turn,
        kmeans,
        nearest,
        representatives,
        smallest_distance,
        typicality,
    )
    from strategies.kernels.committee import consensus_entropy, deviation, information, largest_divergence, votes
    from strategies.kernels.covering import k_center
    from strategies.kernels.design import fisher, least_trace
    from strategies.kernels.discrimination import linear_scores, projected_lengths, tell_apart
    from strategies.kernels.heads import boundary_distance, expected_residual, lengths, mean_cosine
    from strategies.kernels.herding import cosine, coverage, max_herding
    from strategies.kernels.hierarchy import average_linkage
    from strategies.kernels.joint import joint_information, predictive_information
    from strategies.kernels.linear import dropped_disagreement, head_probabilities
    from strategies.kernels.neighbours import anchors, contrast, most_like
    from strategies.kernels.pointwise import entropy, gap, gini, over_labels, ranks, residuals, tempered, top2, turns
    from strategies.kernels.projection import Projection, distinct, fit_projection, nearest_cosine
    from strategies.kernels.ranking import ranked_batch
    from strategies.kernels.sampling import d2_sampling, inclusion, squared_from_mean, systematic
    from strategies.kernels.seeking import seek

__all__ = [
    "MOST_CLUSTERED",
    "Consensus",
    "Line",
    "Projection",
    "anchors",
    "average_linkage",
    "ball_cover",
    "boundary_distance",
    "consensus_entropy",
    "contrast",
    "cosine",
    "coverage",
    "crowdlab",
    "d2_sampling",
    "deviation",
    "distinct",
    "dropped_disagreement",
    "entropy",
    "expected_residual",
    "fisher",
    "fit_projection",
    "gap",
    "gini",
    "head_probabilities",
    "in_turn",
    "inclusion",
    "information",
    "joint_information",
    "k_center",
    "kmeans",
    "largest_divergence",
    "least_trace",
    "lengths",
    "linear_scores",
    "max_herding",
    "mean_cosine",
    "most_like",
    "nearest",
    "nearest_cosine",
    "over_labels",
    "predictive_information",
    "projected_lengths",
    "pure_radius",
    "ranked_batch",
    "ranks",
    "representatives",
    "residuals",
    "seek",
    "smallest_distance",
    "squared_from_mean",
    "systematic",
    "tell_apart",
    "tempered",
    "top2",
    "turns",
    "typicality",
    "votes",
]

_HOMES = {
    "annotators": ("Consensus", "crowdlab"),
    "balls": ("ball_cover", "pure_radius"),
    "bisection": ("Line",),
    "clustering": (
        "MOST_CLUSTERED",
        "in_turn",
        "kmeans",
        "nearest",
        "representatives",
        "smallest_distance",
        "typicality",
    ),
    "committee": ("consensus_entropy", "deviation", "information", "largest_divergence", "votes"),
    "covering": ("k_center",),
    "design": ("fisher", "least_trace"),
    "discrimination": ("linear_scores", "projected_lengths", "tell_apart"),
    "heads": ("boundary_distance", "expected_residual", "lengths", "mean_cosine"),
    "herding": ("cosine", "coverage", "max_herding"),
    "hierarchy": ("average_linkage",),
    "joint": ("joint_information", "predictive_information"),
    "linear": ("dropped_disagreement", "head_probabilities"),
    "neighbours": ("anchors", "contrast", "most_like"),
    "pointwise": ("entropy", "gap", "gini", "over_labels", "ranks", "residuals", "tempered", "top2", "turns"),
    "projection": ("Projection", "distinct", "fit_projection", "nearest_cosine"),
    "ranking": ("ranked_batch",),
    "sampling": ("d2_sampling", "inclusion", "squared_from_mean", "systematic"),
    "seeking": ("seek",),
}
_HOME = {name: home for home, members in _HOMES.items() for name in members}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'strategies.kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"strategies.kernels.{_HOME[name]}"), name)

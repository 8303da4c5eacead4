"""Agglomerative clusters."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage


def average_linkage(points: torch.Tensor, clusters: int) -> NDArray[np.int64]:
    """Cluster of each point (m, d), (m,) from 0: the two clusters of least mean distance merge until `clusters` are
    left. Costs m² d and holds m² float64, half of it twice: 800 MB for 10,000 points."""
    if len(points) <= clusters:
        return np.arange(len(points))
    tree = linkage(torch.pdist(points.double()).numpy(), method="average")
    return _first_merges(tree, len(points) - clusters)


def _first_merges(tree: NDArray[np.float64], merges: int) -> NDArray[np.int64]:
    """Cluster of each leaf after so many merges, numbered by lowest leaf. (scipy has `cut_tree`, at n² for this.)"""
    leaves = len(tree) + 1
    into = np.arange(leaves + merges)
    for merge in range(merges):
        into[tree[merge, :2].astype(np.int64)] = leaves + merge
    for node in range(leaves + merges - 1, -1, -1):  # a node's own cluster is known before its parts'
        into[node] = into[into[node]]
    group: NDArray[np.int64] = np.unique(into[:leaves], return_inverse=True)[1]
    first = np.full(int(group.max()) + 1, leaves)
    np.minimum.at(first, group, np.arange(leaves))
    numbered: NDArray[np.int64] = np.argsort(np.argsort(first))[group]
    return numbered

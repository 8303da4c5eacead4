"""Picking by margin inside a part of the pool."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Request, Selection, highest


def take_within(request: Request, inside: NDArray[np.int64], gap: NDArray[np.floating[Any]]) -> Selection:
    """The smallest margins `gap` (n,) among the rows `inside`; where those are too few, the rest from all others."""
    utilities = -gap.astype(np.float64)
    near = inside[highest(utilities[inside], request.ids[inside], request.budget)]
    outside = np.setdiff1d(np.arange(len(request.ids)), inside)
    far = outside[highest(utilities[outside], request.ids[outside], request.budget - len(near))]
    rows = np.concatenate([near, far])
    return request.take(
        rows,
        utilities[rows],
        reason="it is {where}, and its two best classes are {gap:.0%} apart",
        diagnostics={"subpool": len(inside), "filled_up": len(far), "pool": len(request.ids)},
        where=np.where(np.arange(len(rows)) < len(near), "like labelled items", "unlike labelled items"),
        gap=gap[rows],
    )

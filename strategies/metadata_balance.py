"""As many picks from every group, around any strategy."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.contract import Cost, Needs, Request, Selection, Task
from strategies.randomness import salted, sample
from strategies.registry import register
from strategies.running import restrict, run
from strategies.wrapping import Wrapper, inherited


@register("metadata_balance")
@dataclass(frozen=True)
class MetadataBalance(Wrapper):
    """Let `of` pick in every group by itself, as many in each: of every camera, site, source or year.

    A group smaller than its share gives all it has, and the others more; what cannot be divided, and every pick where
    there are more groups than picks, goes to groups drawn at random. `of` runs once a group, and does not know what it
    picked in the others. Picks stand in turn, one of each group, by utility; the propensity is that of `of`, times the
    chance of the group having been drawn where not all have a pick. It copies the rows of one group at a time.

    Stratified sampling with equal allocation: Cochran, *Sampling techniques*, 1977, chapter 5.
    """

    needs = Needs.GROUPS
    tasks = frozenset(Task)
    cost = Cost.POINTWISE

    def select(self, request: Request) -> Selection:
        assert request.groups is not None
        groups, member, sizes = np.unique(request.groups, return_inverse=True, return_counts=True)
        quotas, chance = _allocated(groups, sizes, request.budget, salted(request.seed, "metadata_balance"))
        by_group = np.split(np.argsort(member, kind="stable"), np.cumsum(sizes)[:-1])
        parts = [
            run(self.of, restrict(self.of, replace(request, budget=int(quotas[group])), by_group[group]))
            for group in np.flatnonzero(quotas)
        ]
        turn = np.concatenate([np.arange(len(part)) for part in parts])
        ids = np.concatenate([part.ids for part in parts])
        utilities = np.concatenate([part.utilities for part in parts])
        order = np.lexsort((ids, -utilities, turn))
        names = np.repeat(groups[quotas > 0], [len(part) for part in parts])
        reasons = [reason for part in parts for reason in part.reasons]
        return Selection(
            ids=ids[order],
            utilities=utilities[order],
            propensities=np.concatenate([part.propensities for part in parts])[order] * chance,
            reasons=tuple(f"of group {names[place]}: {reasons[place]}" for place in order),
            diagnostics={**inherited(parts[0]), "groups": len(groups), "groups_picked": len(parts)},
        )


def _allocated(
    groups: NDArray[np.integer[Any]], sizes: NDArray[np.int64], budget: int, seed: int
) -> tuple[NDArray[np.int64], float]:
    """Picks of each group, `budget` in all, and the chance of a group to have any."""
    low, high = 0, budget
    while low < high:  # the highest level that the budget can fill
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(sizes, level).sum() <= budget else (low, level - 1)
    quotas = np.minimum(sizes, low)
    roomy = np.flatnonzero(sizes > low)
    extra = budget - int(quotas.sum())
    quotas[roomy[sample(groups[roomy].astype(np.int64), seed, extra)]] += 1
    return quotas, 1.0 if low else extra / len(roomy)

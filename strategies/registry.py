"""Names to strategies. The table is lazy: a strategy's module is imported when the strategy is first asked for."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from strategies.contract import Strategy, parameters
from strategies.errors import BrokenPlugin, DuplicateStrategy, UnknownStrategy, WrongParameter

S = TypeVar("S", bound=Strategy)
GROUP = "nextbatch.strategies"
"""Entry points of this group are strategies of other packages: ``name = "package.module:Class"``."""

BUILT_IN = (
    "active_lab",
    "anchor_al",
    "auto",
    "badge",
    "bait",
    "bald",
    "batch_bald",
    "cal",
    "class_balanced_margin",
    "class_quota",
    "clue",
    "cluster_margin",
    "consensus_entropy",
    "dal",
    "dbal",
    "deepfool",
    "density",
    "distinct",
    "drop_query",
    "egl",
    "entropy",
    "epig",
    "facility_location",
    "galaxy",
    "gini",
    "information_density",
    "k_center_greedy",
    "k_means",
    "k_means_plus_plus",
    "kl_divergence",
    "least_confidence",
    "lightweight_coreset",
    "margin",
    "margin_clusters",
    "max_herding",
    "mean_std",
    "metadata_balance",
    "per_cost",
    "predictive_deviation",
    "prob_cover",
    "product",
    "random",
    "random_share",
    "ranked_batch",
    "ratio",
    "seals",
    "similar",
    "stochastic",
    "sub_sample",
    "tcm",
    "typiclust",
    "uherding",
    "variation_ratio",
    "vote_entropy",
)
"""A built-in named x registers itself when ``strategies.x`` is imported, as a plug-in does when its module is."""

_registered: dict[str, type[Strategy]] = {}


def register(name: str) -> Callable[[type[S]], type[S]]:
    """Class decorator: give a strategy its name. Registering the same class again is harmless (a reload)."""

    def enter(strategy: type[S]) -> type[S]:
        holder = _registered.get(name)
        newcomer = f"{strategy.__module__}.{strategy.__qualname__}"
        owner = f"{holder.__module__}.{holder.__qualname__}" if holder else _reserved(name, strategy.__module__)
        if owner and owner != newcomer:
            raise DuplicateStrategy(name=name, owner=owner, newcomer=newcomer)
        strategy.name = name
        _registered[name] = strategy
        return strategy

    return enter


def names() -> tuple[str, ...]:
    """Every name that `create` knows, sorted; nothing is imported for it."""
    return tuple(sorted({*BUILT_IN, *_registered, *(point.name for point in _plugins())}))


def find(name: str) -> type[Strategy]:
    """The class behind a name. Raises UnknownStrategy with the nearest name, BrokenPlugin for a plug-in that fails."""
    if name not in _registered and name in BUILT_IN:
        importlib.import_module(f"strategies.{name}")
    if name not in _registered:
        for point in _plugins():
            if point.name == name:
                return _load(point)
    if name not in _registered:
        raise UnknownStrategy(name=name, nearest=_nearest(name, names()), known=", ".join(names()))
    return _registered[name]


def create(name: str, **values: Any) -> Strategy:
    """A strategy by name with its parameters. Raises WrongParameter or WrongValue, which say what is allowed."""
    strategy = find(name)
    allowed = sorted(parameters(strategy))
    for parameter in values:
        if parameter not in allowed:
            known = ", ".join(allowed) or "none"
            raise WrongParameter(name=name, parameter=parameter, nearest=_nearest(parameter, allowed), allowed=known)
    return strategy(**values)


def _reserved(name: str, module: str) -> str | None:
    own = f"strategies.{name}"
    return own if name in BUILT_IN and module != own else None


def _plugins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _load(point: EntryPoint) -> type[Strategy]:
    try:
        strategy = point.load()
    except Exception as error:
        problem = f"importing it failed with {type(error).__name__}: {error}"
        raise BrokenPlugin(name=point.name, origin=point.value, problem=problem) from error
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise BrokenPlugin(name=point.name, origin=point.value, problem="it is not a subclass of Strategy.")
    return strategy if _registered.get(point.name) is strategy else register(point.name)(strategy)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

"""Which items to label next. ``run(create("margin_clusters"), Request(...))`` gives an ordered Selection.

Importing this is cheap: names are looked up when they are used, and torch is imported by a strategy that computes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.contract import Cost, Needs, Request, Selection, Strategy, Task, highest, parameter, parameters
    from strategies.errors import (
        BadRequest,
        BadSelection,
        BrokenPlugin,
        DuplicateStrategy,
        MissingInput,
        StrategyError,
        UnknownStrategy,
        WrongParameter,
        WrongTask,
        WrongValue,
    )
    from strategies.pointwise import Pointwise, Scores
    from strategies.registry import create, find, names, register
    from strategies.running import check_task, run
    from strategies.values import choice
    from strategies.wrapping import Wrapper, part

__all__ = [
    "BadRequest",
    "BadSelection",
    "BrokenPlugin",
    "Cost",
    "DuplicateStrategy",
    "MissingInput",
    "Needs",
    "Pointwise",
    "Request",
    "Scores",
    "Selection",
    "Strategy",
    "StrategyError",
    "Task",
    "UnknownStrategy",
    "Wrapper",
    "WrongParameter",
    "WrongTask",
    "WrongValue",
    "check_task",
    "choice",
    "create",
    "find",
    "highest",
    "names",
    "parameter",
    "parameters",
    "part",
    "register",
    "run",
]

_HOMES = {
    "contract": ("Cost", "Needs", "Request", "Selection", "Strategy", "Task", "highest", "parameter", "parameters"),
    "pointwise": ("Pointwise", "Scores"),
    "registry": ("create", "find", "names", "register"),
    "running": ("check_task", "run"),
    "values": ("choice",),
    "wrapping": ("Wrapper", "part"),
}
_HOME = {name: home for home, members in _HOMES.items() for name in members}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'strategies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"strategies.{_HOME.get(name, 'errors')}"), name)

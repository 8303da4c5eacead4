"""What can go wrong here: a class per cause, whose docstring is its message. They have a root of their own."""

import inspect


class StrategyError(ValueError):
    """A strategy could not do what was asked."""

    def __init__(self, **facts: object) -> None:
        super().__init__(inspect.cleandoc(type(self).__doc__ or "").format(**facts))
        self.facts = facts


class UnknownStrategy(StrategyError):
    """There is no strategy {name!r}.{nearest} Known strategies: {known}."""


class DuplicateStrategy(StrategyError):
    """The name {name!r} belongs to {owner} already: register {newcomer} under another name."""


class BrokenPlugin(StrategyError):
    """The plug-in {name!r} ({origin}) cannot be used: {problem}"""


class WrongParameter(StrategyError):
    """Strategy {name!r} has no parameter {parameter!r}.{nearest} Allowed: {allowed}."""


class WrongValue(StrategyError):
    """Parameter {parameter!r} of strategy {name!r} must be {rule}, not {value!r}."""


class WrongTask(StrategyError):
    """Strategy {name!r} is not made for {task} labels. Those that are: {fitting}."""


class MissingInput(StrategyError):
    """Strategy {name!r} needs {missing}, which the request does not carry. It needs {needs}."""


class BadRequest(StrategyError):
    """The request cannot be used: {problem}"""


class BadSelection(StrategyError):
    """Strategy {name!r} broke its contract: {problem}"""

"""Every error that nextbatch raises on purpose: a class per cause, whose docstring is its message.

A docstring may name facts in braces; they are given as keyword arguments: ``raise UnknownStrategy(name="margn", nearest="margin")``.
What the user can mend, the message says how to mend.
"""

import inspect


class NextbatchError(Exception):
    """Something went wrong in nextbatch."""

    def __init__(self, **facts: object) -> None:
        super().__init__(inspect.cleandoc(type(self).__doc__ or "").format(**facts))
        self.facts = facts


# --- configuration -------------------------------------------------------------------------------------------


class BadConfiguration(NextbatchError):
    """{path}{line}: {problem}"""


class MissingSetting(NextbatchError):
    """{name} is not set. {mend}"""


class UnknownProject(NextbatchError):
    """There is no project {name!r}. Known projects: {known}. Create one with: nextbatch seed configs/NAME.yaml"""

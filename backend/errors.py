"""Every error that nextbatch raises on purpose: a class per cause, whose docstring is its message.

A docstring may name facts in braces; they are given as keyword arguments: ``raise MissingSetting(name=…, mend=…)``.
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


# --- learning -----------------------------------------------------------------------------------------------


class HeadUnreadable(NextbatchError):
    """The head in {path} cannot be used: {problem}.
    Choose another model version, or start a round: it fits a new head."""


class WrongEmbeddingSize(NextbatchError):
    """Embeddings of shape {shape} were given to a head for {features} features: another encoder made them.
    Use the head together with the encoder that its model version names."""


class NothingToLearnFrom(NextbatchError):
    """There is no label to fit a head with. Label at least one item, or import labels that exist already."""


class UnusableTrainingData(NextbatchError):
    """The head cannot be fitted: {problem}."""


class HoldoutMismatch(NextbatchError):
    """Two models can only be compared on the same holdout: {problem}."""


class SnapshotUnreadable(NextbatchError):
    """The data snapshot in {path} cannot be used: {problem}. The next round writes it again from the database."""

"""What the API answers, as named tuples: frozen dataclasses would be half of what importing the client costs."""

import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Counts(NamedTuple):
    """A project's items, divided without overlap."""

    labelled: int
    holdout: int
    in_batch: int
    pool: int
    new: int
    failed: int
    gone: int


class Round(NamedTuple):
    """A round: waiting, running, done, failed or cancelled; `done` of `total` is the running step's progress."""

    number: int
    state: str
    trigger: str
    step: str
    done: int | None
    total: int | None
    report: dict[str, Any]
    failure: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def has_ended(self) -> bool:
        return self.state not in ("waiting", "running")


class Project(NamedTuple):
    """A project's state. `kind` is image or text."""

    name: str
    kind: str
    classes: int
    strategy: str
    batch_size: int
    studio_url: str | None
    counts: Counts
    round: Round | None


class Batch(NamedTuple):
    """A batch in a list; `version` is what Label Studio knows it by."""

    number: int
    version: str
    state: str
    strategy: str
    policy: str
    size: int
    labelled: int


class Pick(NamedTuple):
    """One item of a batch, and why it is there."""

    rank: int
    item_id: int
    uri: str
    prediction: str | None
    probabilities: dict[str, float]
    reason: str
    utility: float | None
    is_holdout_slice: bool
    label: str | None
    task_url: str | None


class Measure(NamedTuple):
    """An accuracy in [0, 1] with its 95 % interval, and what it was measured on."""

    source: str
    labels: int
    accuracy: float
    low: float
    high: float


class Model(NamedTuple):
    """A model version; `labels` is how many it was trained on."""

    name: str
    number: int
    state: str
    labels: int
    measure: Measure | None


class Item(NamedTuple):
    """One item of the pool or the holdout."""

    id: int
    key: str
    uri: str
    state: str
    is_holdout: bool
    label: str | None
    failure: str | None


class Query(NamedTuple):
    """A query: waiting, running, done, failed or cancelled; `done` of `total` is the running step's progress.

    `chosen` is the strategy that chose and `policy` why that one; `size` items were chosen with the model `model`.
    """

    number: int
    state: str
    step: str
    done: int | None
    total: int | None
    budget: int
    strategy: str | None
    chosen: str | None
    policy: str | None
    model: str | None
    size: int | None
    failure: str | None

    @property
    def has_ended(self) -> bool:
        return self.state not in ("waiting", "running")


class Job(NamedTuple):
    """A part of a scan that many workers share; `done` of `items` have an embedding, `failed` of those never will."""

    id: int
    state: str
    worker: str | None
    done: int
    items: int
    failed: int
    left_s: float | None
    failure: str | None


class LogLine(NamedTuple):
    """A line of a log: when, how grave (info, warning, error), what happened, and its facts in words."""

    at: datetime
    level: str
    event: str
    facts: dict[str, str]


class Pushed(NamedTuple):
    """How many items were new and known; how many were refused, and why, a line a reason."""

    added: int
    known: int
    refused: int
    reasons: list[str]


class Stored(NamedTuple):
    """How many labels were new, changed, and as they were."""

    new: int
    changed: int
    unchanged: int


class Counted(NamedTuple):
    """Feedback: how many were new and changed, and how many speak against what was said."""

    new: int
    changed: int
    against: int


class Feedback(NamedTuple):
    """What somebody says of what `version` said of an item: a vote ("for" or "against"), or its true label."""

    uri: str
    version: str
    vote: str | None = None
    label: str | None = None
    voter: str | None = None


class Label(NamedTuple):
    """What somebody says of an item, which its address (or text) names; None is a skip. `id` is your own id of it."""

    uri: str
    label: str | None
    annotator: str | None = None
    id: int | None = None
    seconds: float | None = None


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """`values` as a named tuple; what a newer service says besides is left out."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hint, values[name]) for name, hint in hints.items()})


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    for kind in typing.get_args(hint) or (hint,):
        if kind is datetime:
            return datetime.fromisoformat(value)
        if isinstance(kind, type) and issubclass(kind, tuple):
            return read(kind, value)
    return value

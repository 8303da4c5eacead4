"""What the API answers, as frozen dataclasses."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Counts:
    """A project's items, divided without overlap."""

    labelled: int
    holdout: int
    in_batch: int
    pool: int
    new: int
    failed: int
    gone: int


@dataclass(frozen=True)
class Round:
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


@dataclass(frozen=True)
class Project:
    """A project's state. `kind` is image or text."""

    name: str
    kind: str
    classes: int
    strategy: str
    batch_size: int
    studio_url: str | None
    counts: Counts
    round: Round | None


@dataclass(frozen=True)
class Batch:
    """A batch in a list; `version` is what Label Studio knows it by."""

    number: int
    version: str
    state: str
    strategy: str
    policy: str
    size: int
    labelled: int


@dataclass(frozen=True)
class Pick:
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


@dataclass(frozen=True)
class Measure:
    """An accuracy in [0, 1] with its 95 % interval, and what it was measured on."""

    source: str
    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Model:
    """A model version; `labels` is how many it was trained on."""

    name: str
    number: int
    state: str
    labels: int
    measure: Measure | None


@dataclass(frozen=True)
class Item:
    """One item of the pool or the holdout."""

    id: int
    key: str
    uri: str
    state: str
    is_holdout: bool
    label: str | None
    failure: str | None


@dataclass(frozen=True)
class Query:
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


@dataclass(frozen=True)
class Job:
    """A part of a scan that many workers share; `done` of `items` have an embedding, `failed` of those never will."""

    id: int
    state: str
    worker: str | None
    done: int
    items: int
    failed: int
    left_s: float | None
    failure: str | None


@dataclass(frozen=True)
class LogLine:
    """A line of a log: when, how grave (info, warning, error), what happened, and its facts in words."""

    at: datetime
    level: str
    event: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Pushed:
    """How many items were new and known; how many were refused, and why, a line a reason."""

    added: int
    known: int
    refused: int
    reasons: list[str]


@dataclass(frozen=True)
class Stored:
    """How many labels were new, changed, and as they were."""

    new: int
    changed: int
    unchanged: int


@dataclass(frozen=True)
class Counted:
    """Feedback: how many were new and changed, and how many speak against what was said."""

    new: int
    changed: int
    against: int


@dataclass(frozen=True)
class Feedback:
    """What somebody says of what `version` said of an item: a vote ("for" or "against"), or its true label."""

    uri: str
    version: str
    vote: str | None = None
    label: str | None = None
    voter: str | None = None


@dataclass(frozen=True)
class Label:
    """What somebody says of an item, which its address (or text) names; None is a skip. `id` is your own id of it."""

    uri: str
    label: str | None
    annotator: str | None = None
    id: int | None = None
    seconds: float | None = None


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """`values` as a dataclass; what a newer service says besides is left out."""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(typing.cast(Any, kind))
    return kind(**{field.name: _value(hints[field.name], values[field.name]) for field in fields})


def _value(hint: Any, value: Any) -> Any:
    kinds = [one for one in typing.get_args(hint) or (hint,) if isinstance(one, type)]
    if value is None:
        return None
    if any(dataclasses.is_dataclass(one) for one in kinds):
        return read(next(one for one in kinds if dataclasses.is_dataclass(one)), value)
    return datetime.fromisoformat(value) if datetime in kinds else value

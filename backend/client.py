"""Call a running nextbatch from Python: ``Client("http://localhost:9090").project("flowers").counts.labelled``.

Imports httpx and nothing heavier, so that scripts and notebooks may use it anywhere.
"""

import dataclasses
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from backend.errors import ServiceRefused, ServiceSilent

__all__ = ["Batch", "Client", "Counts", "Item", "Model", "Pick", "Project", "Round"]

T = TypeVar("T")
_PAGE = 200
_POLL_S = 0.5


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


class Client:
    """A connection to one nextbatch, for one thread. Raises ServiceRefused and ServiceSilent."""

    def __init__(self, url: str, username: str = "", password: str = "", timeout_s: float = 30.0) -> None:
        auth = (username, password) if username or password else None
        self._http = httpx.Client(base_url=f"{url.rstrip('/')}/api/v1", auth=auth, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def project_names(self) -> list[str]:
        """The projects' names."""
        return [one["name"] for one in self._call("GET", "/projects")]

    def project(self, name: str) -> Project:
        """The project's state at this moment."""
        return _read(Project, self._call("GET", _path(name)))

    def rounds(self, name: str) -> Iterator[Round]:
        """Rounds, newest first, fetched as they are asked for."""
        return self._rows(Round, _path(name, "rounds"))

    def batches(self, name: str) -> Iterator[Batch]:
        """Batches, newest first."""
        return self._rows(Batch, _path(name, "batches"))

    def picks(self, name: str, batch: int) -> Iterator[Pick]:
        """The items of a batch in rank order."""
        return self._rows(Pick, _path(name, "batches", batch), within="picks")

    def models(self, name: str) -> Iterator[Model]:
        """Model versions, newest first."""
        return self._rows(Model, _path(name, "models"))

    def items(self, name: str, state: str | None = None) -> Iterator[Item]:
        """Items by id, perhaps of one state only: new, encoded, failed or gone."""
        return self._rows(Item, _path(name, "items"), query={} if state is None else {"state": state})

    def ask_for_round(self, name: str) -> Round:
        """The round that will see all that was known when it was asked for; the one that waits, if one does."""
        return _read(Round, self._call("POST", _path(name, "rounds")))

    def wait_for_round(
        self, name: str, number: int, timeout_s: float = 3_600, progress: Callable[[Round], None] = lambda _round: None
    ) -> Round:
        """The round once it has ended, however it did; `progress` is told what changes meanwhile."""
        deadline, told = time.monotonic() + timeout_s, None
        while True:
            round_ = _read(Round, self._call("GET", _path(name, "rounds", number)))
            if round_ != told:
                progress(round_)
                told = round_
            if round_.has_ended:
                return round_
            if time.monotonic() > deadline:
                raise ServiceSilent(url=str(self._http.base_url), problem=f"round {number} is still {round_.state}")
            time.sleep(_POLL_S)

    def _rows(self, kind: type[T], path: str, within: str = "", query: Mapping[str, Any] | None = None) -> Iterator[T]:
        start: int | None = None
        while True:
            place = {} if start is None else {"from": start}
            answer = self._call("GET", path, {"limit": _PAGE, **(query or {}), **place})
            page = answer[within] if within else answer
            yield from (_read(kind, row) for row in page["items"])
            start = page["next"]
            if start is None:
                return

    def _call(self, method: str, path: str, query: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._http.request(method, path, params=query, json={} if method == "POST" else None)
        except httpx.TransportError as error:
            raise ServiceSilent(url=str(self._http.base_url), problem=type(error).__name__) from error
        if answer.is_success:
            return answer.json()
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.reason_phrase
        raise ServiceRefused(url=str(self._http.base_url), status=answer.status_code, detail=detail)


def _path(*parts: str | int) -> str:
    return "/projects/" + "/".join(quote(str(part), safe="") for part in parts)


def _read(kind: type[T], values: Mapping[str, Any]) -> T:
    """`values` as a dataclass; what a newer service says besides is left out."""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(typing.cast(Any, kind))
    return kind(**{field.name: _value(hints[field.name], values[field.name]) for field in fields})


def _value(hint: Any, value: Any) -> Any:
    kinds = [one for one in typing.get_args(hint) or (hint,) if isinstance(one, type)]
    if value is None:
        return None
    if any(dataclasses.is_dataclass(one) for one in kinds):
        return _read(next(one for one in kinds if dataclasses.is_dataclass(one)), value)
    return datetime.fromisoformat(value) if datetime in kinds else value

"""The client's calls: what there is, what happens, and what to label."""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from backend.client.shapes import (
    Batch,
    Counted,
    Feedback,
    Item,
    Job,
    Label,
    LogLine,
    Model,
    Pick,
    Project,
    Pushed,
    Query,
    Round,
    Stored,
    read,
)
from backend.errors import QueryFailed, ServiceSilent

_POLL_S = 0.5
_LINES = 50_000  # items a request: so many are told of together
_LABELS = 1_000  # the most that a request takes

T = TypeVar("T", Round, Query)


class Client:
    """A connection to one nextbatch, for one thread. Raises ServiceRefused and ServiceSilent.

    `token` is one of `nextbatch tokens create`; username and password are the service's own.
    """

    def __init__(
        self, url: str, username: str = "", password: str = "", timeout_s: float = 30.0, token: str = ""
    ) -> None:
        from backend.client.connection import Connection  # brings httpx, most of what importing all this would cost

        self._at = Connection(url, username, password, token, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._at.close()

    # What there is.

    def project_names(self) -> list[str]:
        """The projects' names."""
        return [one["name"] for one in self._at.get("/projects")]

    def project(self, name: str) -> Project:
        """The project's state at this moment."""
        return read(Project, self._at.get(_path(name)))

    def rounds(self, name: str) -> Iterator[Round]:
        """Rounds, newest first, fetched as they are asked for."""
        return self._at.rows(Round, _path(name, "rounds"))

    def batches(self, name: str) -> Iterator[Batch]:
        """Batches, newest first."""
        return self._at.rows(Batch, _path(name, "batches"))

    def picks(self, name: str, batch: int) -> Iterator[Pick]:
        """The items of a batch in rank order."""
        return self._at.rows(Pick, _path(name, "batches", batch), within="picks")

    def models(self, name: str) -> Iterator[Model]:
        """Model versions, newest first."""
        return self._at.rows(Model, _path(name, "models"))

    def items(self, name: str, state: str | None = None) -> Iterator[Item]:
        """Items by id, perhaps of one state only: new, encoded, failed or gone."""
        return self._at.rows(Item, _path(name, "items"), query={} if state is None else {"state": state})

    def jobs(self, name: str) -> Iterator[Job]:
        """The parts of a scan that many workers share, newest first."""
        return self._at.rows(Job, _path(name, "jobs"))

    def log(
        self, name: str, number: int, of: Literal["rounds", "jobs", "encoder-changes"] = "rounds"
    ) -> Iterator[LogLine]:
        """What a round, a query, a job or a change of the encoder wrote last, newest first."""
        return self._at.rows(LogLine, _path(name, of, number, "log"))

    # Selecting without Label Studio.

    def select(
        self,
        uris: Iterable[str],
        budget: int,
        strategy: str | None = "auto",
        *,
        name: str | None = None,
        kind: Literal["image", "text"] = "image",
        timeout_s: float = 3_600,
        progress: Callable[[Query], None] = lambda _query: None,
        **project: Any,
    ) -> list[Pick]:
        """The `budget` items to label of these addresses, the most useful first: one round, in one call.

        The project is named after its addresses unless `name` is given; called again with the same ones it goes on,
        encodes what is new, and uses the labels that came. `project` is what `make_project` takes besides.
        Raises QueryFailed.
        """
        import hashlib  # brings OpenSSL

        pool = list(dict.fromkeys(uris))
        digest = hashlib.sha256("\n".join([kind, *sorted(pool)]).encode()).hexdigest()[:16]
        name = name or f"select-{digest}"
        self.make_project(name, kind, **project)
        self.push(name, pool)
        asked = self.query(name, budget, strategy)
        ended = self.wait_for_query(name, asked.number, timeout_s, progress)
        if ended.state != "done":
            raise QueryFailed(number=ended.number, project=name, reason=ended.failure or ended.state)
        return list(self.chosen(name, ended.number))

    def make_project(
        self, name: str, kind: Literal["image", "text"] = "image", labels: Sequence[str] = (), **config: Any
    ) -> Project:
        """A project without Label Studio, made or found. `config`: sections as in a YAML, such as `pool={…}`.

        Without `labels` it learns every label that comes.
        """
        body = {"name": name, "kind": kind, "labels": list(labels), **config}
        return read(Project, self._at.post("/projects", body))

    def push(
        self,
        name: str,
        items: Iterable[str | Mapping[str, Any]],
        progress: Callable[[int], None] = lambda _pushed: None,
    ) -> Pushed:
        """Push addresses, or objects with `uri` (or `text`) and data; `progress` is told how many so far."""
        added = known = refused = 0
        reasons: list[str] = []
        rest = iter(items)
        while first := list(itertools.islice(rest, 1)):
            some = itertools.chain(first, itertools.islice(rest, _LINES - 1))
            answer = read(Pushed, self._at.stream(_path(name, "items"), map(_line, some)))
            added, known, refused = added + answer.added, known + answer.known, refused + answer.refused
            reasons += answer.reasons
            progress(added + known + refused)
        return Pushed(added, known, refused, reasons)

    def push_manifest(self, name: str, address: str, uri_field: str = "uri") -> Pushed:
        """Push what a manifest names, which the service reads itself."""
        return read(Pushed, self._at.post(_path(name, "items"), {"manifest": address, "uri_field": uri_field}))

    def query(self, name: str, budget: int, strategy: str | None = None, **parameters: Any) -> Query:
        """Ask which items to label: a job. Without a strategy the project's own."""
        body = {"budget": budget, "strategy": strategy, "parameters": parameters}
        return read(Query, self._at.post(_path(name, "queries"), body))

    def queries(self, name: str) -> Iterator[Query]:
        """Queries, newest first."""
        return self._at.rows(Query, _path(name, "queries"))

    def wait_for_query(
        self, name: str, number: int, timeout_s: float = 3_600, progress: Callable[[Query], None] = lambda _query: None
    ) -> Query:
        """The query once it has ended, however it did; `progress` is told what changes meanwhile."""
        return self._wait(Query, _path(name, "queries", number), f"query {number}", timeout_s, progress)

    def chosen(self, name: str, number: int) -> Iterator[Pick]:
        """What a query chose, in order."""
        return self._at.rows(Pick, _path(name, "queries", number, "picks"))

    def label(self, name: str, labels: Iterable[Label]) -> Stored:
        """Keep labels, which the next query or round learns from; of many, 1,000 at a time."""
        new = changed = unchanged = 0
        rest = iter(labels)
        while some := list(itertools.islice(rest, _LABELS)):
            body = {"labels": [one._asdict() for one in some]}
            answer = read(Stored, self._at.post(_path(name, "labels"), body))
            new, changed, unchanged = new + answer.new, changed + answer.changed, unchanged + answer.unchanged
        return Stored(new, changed, unchanged)

    def give_feedback(self, name: str, feedback: Iterable[Feedback]) -> Counted:
        """Keep votes on served predictions; items with many against them join the project's next batch."""
        new = changed = against = 0
        rest = iter(feedback)
        while some := list(itertools.islice(rest, _LABELS)):
            body = {"project": name, "feedback": [one._asdict() for one in some]}
            answer = read(Counted, self._at.post("/feedback", body))
            new, changed, against = new + answer.new, changed + answer.changed, against + answer.against
        return Counted(new, changed, against)

    # Rounds.

    def ask_for_round(self, name: str) -> Round:
        """The round that will see all that was known when it was asked for; the one that waits, if one does."""
        return read(Round, self._at.post(_path(name, "rounds"), {}))

    def wait_for_round(
        self, name: str, number: int, timeout_s: float = 3_600, progress: Callable[[Round], None] = lambda _round: None
    ) -> Round:
        """The round once it has ended, however it did; `progress` is told what changes meanwhile."""
        return self._wait(Round, _path(name, "rounds", number), f"round {number}", timeout_s, progress)

    def cancel(self, name: str, number: int) -> Round:
        """Cancel a round or a query; it ends at its next step."""
        return read(Round, self._at.post(_path(name, "rounds", number, "cancel"), {}))

    def _wait(self, kind: type[T], path: str, what: str, timeout_s: float, progress: Callable[[T], None]) -> T:
        deadline, tag, last = time.monotonic() + timeout_s, "", None
        while True:
            found, tag = self._at.changed(path, tag)
            if found is not None:
                last = read(kind, found)
                progress(last)
            assert last is not None, "without a tag the service answers in full"
            if last.has_ended:
                return last
            if time.monotonic() > deadline:
                raise ServiceSilent(url=self._at.url, problem=f"{what} is still {last.state}")
            time.sleep(_POLL_S)


def _line(item: str | Mapping[str, Any]) -> bytes:
    return json.dumps({"uri": item} if isinstance(item, str) else item).encode() + b"\n"


def _path(*parts: str | int) -> str:
    """The path of a project, or of what is below it."""
    return "/projects/" + "/".join(quote(str(part), safe="") for part in parts)

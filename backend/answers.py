"""What /predict says of the tasks that a person has open: one entry a task, in order, within a deadline.

Known items cost a look into the stores; a few unknown ones go through the encoder at once; the others wait for a round.
"""

import concurrent.futures
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from backend import metrics
from backend.database import Item, reading, transaction
from backend.errors import NextbatchError
from backend.learning.heads import Head
from backend.learning.registry import head_path
from backend.pool.catalog import NewItem, add_items, chunks, item_key, storable
from backend.pool.texts import MAX_BYTES
from backend.scoring.vectors import VectorStore
from backend.settings import settings

log = structlog.get_logger()

MOST_AT_ONCE = 4  # unknown tasks that a call may send through the encoder: a person has that many open
ENCODE_WITHIN_S = 5.0
_RESERVE_S = 0.2  # of the deadline, kept for building the answer
_MAX_URI = 65_536
_KEY = re.compile("[0-9a-f]{40}")


class EncodeNow(Protocol):
    """Turns a project's URIs into embeddings (d,) of that encoder at once; those that fail are left out."""

    def __call__(self, project_id: int, encoder_digest: str, uris: list[str], /) -> dict[str, NDArray[Any]]: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The most recently used values that never change, at most `size` of them; safe for threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of that key, made if it is not here. What `make` raises is not remembered."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            value = self._values[key] = make()
            while len(self._values) > self._size:
                self._values.popitem(last=False)
            return value


_heads: Recent[str, Head] = Recent(8)
_stores: Recent[tuple[str, str, int], VectorStore] = Recent(4)
_encoding = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="encode-now")


@dataclass(frozen=True)
class Model:
    """What answers: the champion's head over its encoder's vectors."""

    head: Head
    encoder_digest: str

    @property
    def vectors(self) -> VectorStore:
        root = settings().home / "vectors"
        return _stores.get(
            (str(root), self.encoder_digest, self.head.features),
            lambda: VectorStore(root, self.encoder_digest, self.head.features),
        )


@dataclass(frozen=True)
class Open:
    """A task as it came: its place in the request, Label Studio's id, and the item's URI or text."""

    place: int
    task_id: int | None
    uri: str
    key: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class _Known:
    id: int
    key: str
    task_id: int | None
    state: str
    content_hash: str | None


def load_model(encoder_digest: str, head_digest: str) -> Model:
    """The model, from memory if it answered lately. Raises HeadUnreadable."""
    path = head_path(head_digest)
    return Model(_heads.get(str(path), lambda: Head.load(path, head_digest)), encoder_digest)


def read_task(place: int, task: object, data_key: str | None, is_inline: bool = False) -> Open | None:
    """The task, or None where it holds nothing that can be predicted. `is_inline`: a text stands in it, no address."""
    data = task.get("data") if isinstance(task, dict) else None
    uri = data.get(data_key) if isinstance(data, dict) and data_key is not None else None
    if not isinstance(task, dict) or not isinstance(data, dict) or not isinstance(uri, str):
        return None
    uri = storable(uri) if is_inline else uri
    if not 0 < len(uri) <= (MAX_BYTES if is_inline else _MAX_URI) or "\0" in uri:
        return None
    try:
        own_key = item_key(uri)
    except UnicodeEncodeError:  # half a surrogate pair: JSON may hold it, no URI does
        return None
    id_, key = task.get("id"), data.get("nextbatch_key")
    is_id = isinstance(id_, int) and not isinstance(id_, bool) and 0 < id_ < 2**31  # INTEGER on Postgres
    return Open(
        place, id_ if is_id else None, uri, key if isinstance(key, str) and _KEY.fullmatch(key) else own_key, data
    )


def predict_tasks(
    project_id: int, model: Model | None, tasks: Sequence[Open], deadline: float, encode_now: EncodeNow | None
) -> dict[int, NDArray[np.float32]]:
    """Class probabilities (K,) by place in the request, for those that could be had by `deadline` (monotonic).

    What is unknown becomes an item in the catalogue, so that the next round encodes it.
    """
    answers: dict[int, NDArray[np.float32]] = {}
    unencoded: list[Open] = []
    unknown: list[Open] = []
    for chunk in chunks(tasks):
        if time.monotonic() > deadline - _RESERVE_S:
            metrics.predictions.labels("late").inc(len(chunk))
            continue
        known = _look_up(project_id, chunk)
        stored = [(task, item.content_hash) for task, item in known if item is not None and item.content_hash]
        found = _from_store(model, stored) if model is not None else {}
        answers |= found
        metrics.predictions.labels("stored").inc(len(found))
        for task, item in known:
            if item is None:
                unknown.append(task)
            if task.place not in found:
                state = "new" if item is None else item.state
                metrics.predictions.labels(_outcome(model, state)).inc()
                if state in ("new", "encoded"):  # an encoded one without a vector in this encoder's store counts too
                    unencoded.append(task)
    _catalogue(project_id, unknown, deadline)
    if model is not None and encode_now is not None and unencoded:
        found = _encode(project_id, model, unencoded[:MOST_AT_ONCE], deadline, encode_now)
        answers |= found
        metrics.predictions.labels("encoded").inc(len(found))
    return answers


def says(model: Model, hashes: Sequence[str]) -> list[str | None]:
    """The label that a model gives each content; None where its vector is not stored, or cannot be read."""
    found = _from_store(model, [(Open(at, None, "", "", {}), hash_) for at, hash_ in enumerate(hashes)])
    return [model.head.label_of(found[at]) if at in found else None for at in range(len(hashes))]


def _outcome(model: Model | None, state: str) -> str:
    if state in ("failed", "gone"):
        return state
    return "no_model" if model is None else "queued"


def _look_up(project_id: int, tasks: Sequence[Open]) -> list[tuple[Open, _Known | None]]:
    """Each task with its item: by task id, else by key."""
    ids = [task.task_id for task in tasks if task.task_id is not None]
    keys = [task.key for task in tasks]
    with reading() as session:
        rows = session.execute(
            sa.select(Item.id, Item.key, Item.task_id, Item.state, Item.content_hash).where(
                Item.project_id == project_id, sa.or_(Item.task_id.in_(ids), Item.key.in_(keys))
            )
        ).all()
    items = [_Known(*row) for row in rows]
    by_task = {item.task_id: item for item in items if item.task_id is not None}
    by_key = {item.key: item for item in items}
    return [
        (task, (by_task.get(task.task_id) if task.task_id is not None else None) or by_key.get(task.key))
        for task in tasks
    ]


def _from_store(model: Model, tasks: Sequence[tuple[Open, str]]) -> dict[int, NDArray[np.float32]]:
    """Predictions of the tasks whose vector is stored. A damaged segment costs its own items only."""
    if not tasks:
        return {}
    try:
        rows = model.vectors.locate([content_hash for _, content_hash in tasks])
    except (NextbatchError, OSError) as error:
        log.error("predict.vectors_unreadable", cause=type(error).__name__)
        return {}
    present = np.flatnonzero(rows >= 0)
    places = [tasks[index][0].place for index in present]
    try:
        return _finite(places, model.head.predict(model.vectors.gather(rows[present])))
    except (NextbatchError, OSError) as error:
        log.error("predict.vectors_damaged", cause=type(error).__name__, rows=len(present))
    answers: dict[int, NDArray[np.float32]] = {}
    for place, row in zip(places, rows[present], strict=True):
        try:
            answers |= _finite([place], model.head.predict(model.vectors.gather(np.array([row]))))
        except (NextbatchError, OSError):
            continue
    return answers


def _finite(places: Sequence[int], probabilities: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
    return {place: row for place, row in zip(places, probabilities, strict=True) if np.isfinite(row).all()}


def _encode(
    project_id: int, model: Model, tasks: Sequence[Open], deadline: float, encode_now: EncodeNow
) -> dict[int, NDArray[np.float32]]:
    """Predictions through the encoder, as far as it answers in time. It may go on afterwards; two calls at most do."""
    within_s = min(ENCODE_WITHIN_S, deadline - _RESERVE_S - time.monotonic())
    if within_s <= 0:
        return {}
    job = _encoding.submit(
        encode_now, project_id, model.encoder_digest, list(dict.fromkeys(task.uri for task in tasks))
    )
    try:
        vectors: Mapping[str, NDArray[Any]] = job.result(timeout=within_s)
    except concurrent.futures.TimeoutError:
        job.cancel()
        log.warning("predict.encoder_late", within_s=round(within_s, 2))
        return {}
    except Exception as error:  # whatever the encoder's client raises, the person's task opens all the same
        log.warning("predict.encoder_failed", cause=type(error).__name__)
        return {}
    answers: dict[int, NDArray[np.float32]] = {}
    for task in tasks:
        vector = vectors.get(task.uri)
        if vector is None:
            continue
        try:
            answers |= _finite([task.place], model.head.predict(np.asarray(vector, np.float32).reshape(1, -1)))
        except (NextbatchError, ValueError, TypeError) as error:
            log.warning("predict.vector_unusable", cause=type(error).__name__)
    return answers


def _catalogue(project_id: int, tasks: Sequence[Open], deadline: float) -> None:
    """Make items of unknown tasks, in short transactions. What is not written now, the next round's sync finds."""
    for chunk in chunks(tasks):
        if not _add(project_id, chunk, deadline) and len(chunk) > 1:  # one that the database refuses costs itself only
            for task in chunk:
                _add(project_id, [task], deadline)


def _add(project_id: int, tasks: Sequence[Open], deadline: float) -> bool:
    if time.monotonic() > deadline - _RESERVE_S:
        return False
    try:
        with transaction() as session:
            new = [NewItem(task.uri, task.data, task.task_id, key=task.key) for task in tasks]
            add_items(session, project_id, new)
    except SQLAlchemyError as error:
        log.warning("predict.not_catalogued", cause=type(error).__name__, tasks=len(tasks))
        return False
    return True

"""The map's second form, by UMAP: made by a worker when it finds time, kept beside the map; new items need no new one.

Rounds know nothing of it. It may be deleted: it is made again.
"""

import contextlib
import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from backend.artefacts import whole
from backend.database import Item, Project, reading
from backend.errors import MapUnreadable, NextbatchError
from backend.learning import umap_run
from backend.learning.layout import Axes, beside, principal_axes
from backend.rounds.atlas import Map, map_path
from backend.rounds.encoding import Embeddings, open_embeddings
from backend.scoring.vectors import VectorStore

log = structlog.get_logger()

EVERY_S = 30.0
AXES = 40  # UMAP sees the principal axes, so many: half the time of 1,792 numbers, and hardly another picture
FEWEST = 50
GROWN = 1.5  # it is fitted anew once there are so many times the items that it was fitted to
_SAMPLE = 10_000
_AT_ONCE = 8_192
_NAMES = ("ids", "places", "rows", "centre", "directions")
_FORMAT = "nextbatch-umap-1"

Unfold = Callable[[NDArray[np.float32], Path, threading.Event], NDArray[np.float32] | None]


@dataclass(frozen=True, eq=False)
class Unfolded:
    """``ids`` (n,) int64 and their ``places`` (n, 2) float32, the first `fitted_on` by UMAP and the others beside them;
    ``rows`` (n, k) float16 along `axes`, by which others find their neighbours."""

    ids: NDArray[np.int64]
    places: NDArray[np.float32]
    rows: NDArray[np.float16]
    axes: Axes
    encoder_digest: str
    fitted_on: int

    def save(self, path: Path) -> None:
        """Write a safetensors file in one step."""
        parts = (self.ids, self.places, self.rows, self.axes.centre, np.ascontiguousarray(self.axes.directions))
        arrays: dict[str, NDArray[Any]] = dict(zip(_NAMES, parts, strict=True))
        facts = json.dumps({"encoder": self.encoder_digest, "fitted_on": self.fitted_on})
        with whole(path, is_durable=False) as file:
            file.write(save(arrays, {"format": _FORMAT, "facts": facts}))

    @classmethod
    def load(cls, path: Path) -> "Unfolded":
        """Read what `save` wrote. Raises MapUnreadable for anything else."""
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                ids, places, rows, centre, directions = (file.get_tensor(name) for name in _NAMES)
            return cls(ids, places, rows, Axes(centre, directions), str(facts["encoder"]), int(facts["fitted_on"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise MapUnreadable(path=path, problem=error) from error


def unfolded_path(project_id: int) -> Path:
    """Whether or not it is there."""
    return map_path(project_id).with_suffix(".umap.safetensors")


class Unfolder:
    """Looks whether a map changed, and brings its second form up to date. Call it every `EVERY_S`, from a thread that
    lives as long as the worker: its child dies with that. One worker of a home does it for a project at a time."""

    def __init__(self, stopping: threading.Event, unfold: Unfold | None = None) -> None:
        self._stopping = stopping
        self._unfold = unfold or (umap_run.unfold if umap_run.is_there() else None)
        self._seen: dict[int, int] = {}
        self._failed: dict[int, int] = {}

    def __call__(self) -> None:
        if self._unfold is None:
            return
        with reading() as session:
            projects = session.scalars(sa.select(Project).order_by(Project.id)).all()
        for project in projects:
            try:
                self._look(project, self._unfold)
            except (NextbatchError, OSError) as problem:
                log.warning("map.not_unfolded", project=project.id, problem=str(problem))

    def _look(self, project: Project, unfold: Unfold) -> None:
        path = map_path(project.id)
        if self._stopping.is_set() or not path.exists() or self._seen.get(project.id) == path.stat().st_mtime_ns:
            return
        with _alone(path) as is_ours:
            if is_ours:
                self._seen[project.id] = path.stat().st_mtime_ns
                self._bring_up(project, Map.load(path), unfold)

    def _bring_up(self, project: Project, drawn: Map, unfold: Unfold) -> None:
        embeddings = open_embeddings(project)
        if embeddings.digest != drawn.encoder_digest:
            return  # the next round draws it
        before = _known(project.id, drawn.encoder_digest)
        if before is not None and len(drawn.ids) < GROWN * before.fitted_on:
            after = _with_new(before, drawn, embeddings.store)
            if after is not before:
                after.save(unfolded_path(project.id))
            return
        if len(drawn.ids) < max(FEWEST, 1.1 * self._failed.get(project.id, 0)):
            return
        self._failed[project.id] = len(drawn.ids)
        if _make(project, drawn, embeddings, unfold, self._stopping):
            del self._failed[project.id]


def _make(project: Project, drawn: Map, embeddings: Embeddings, unfold: Unfold, stopping: threading.Event) -> bool:
    ids, stored = _stored(drawn.ids, embeddings.store)
    order = np.random.default_rng(0).permutation(len(ids))  # the first are fitted: a uniform draw
    ids, stored = ids[order], stored[order]
    axes = principal_axes(embeddings.store.gather(np.sort(stored[:_SAMPLE])), count=AXES)
    rows = _rows(stored, axes, embeddings.store)
    folder = unfolded_path(project.id).with_suffix(".run")
    folder.mkdir(parents=True, exist_ok=True)
    places = unfold(rows, folder, stopping)
    if places is None:
        return False
    fitted = min(len(ids), umap_run.MOST_FITTED)
    made = Unfolded(ids, places, rows.astype(np.float16), axes, embeddings.digest, len(drawn.ids))
    made.save(unfolded_path(project.id))
    shutil.rmtree(folder, ignore_errors=True)
    log.info("map.unfolded", project=project.id, items=len(ids), fitted=fitted)
    return True


def _with_new(before: Unfolded, drawn: Map, store: VectorStore) -> Unfolded:
    """The same with the items that came, each at the mean of its neighbours."""
    ids, stored = _stored(np.setdiff1d(drawn.ids, before.ids), store)
    if not len(ids):
        return before
    rows = _rows(stored, before.axes, store)
    known = slice(0, umap_run.MOST_FITTED)
    places = beside(before.rows[known].astype(np.float32), before.places[known], rows)
    return replace(
        before,
        ids=np.concatenate([before.ids, ids]),
        places=np.concatenate([before.places, places]),
        rows=np.concatenate([before.rows, rows.astype(np.float16)]),
    )


def _stored(ids: NDArray[np.int64], store: VectorStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those of ids (n,) whose embedding is there, and its row in the store."""
    hashes: dict[int, str] = {}
    with reading() as session:
        for at in range(0, len(ids), _AT_ONCE):
            some = sa.select(Item.id, Item.content_hash).where(Item.id.in_(ids[at : at + _AT_ONCE].tolist()))
            hashes |= {item_id: hash_ for item_id, hash_ in session.execute(some) if hash_}
    known = np.array([one for one in ids.tolist() if one in hashes], np.int64)
    rows = store.locate([hashes[one] for one in known.tolist()])
    return known[rows >= 0], rows[rows >= 0]


def _rows(stored: NDArray[np.int64], axes: Axes, store: VectorStore) -> NDArray[np.float32]:
    parts = [axes.place(store.gather(stored[at : at + _AT_ONCE])) for at in range(0, len(stored), _AT_ONCE)]
    return np.concatenate(parts)


def _known(project_id: int, digest: str) -> Unfolded | None:
    try:
        before = Unfolded.load(unfolded_path(project_id))
    except MapUnreadable:
        return None
    return before if before.encoder_digest == digest else None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

"""A project's map: its items in two dimensions, what the model says of each, and how sure it is. A file below home.

A round's last step draws it while people label; the web process reads it. It may be deleted: the next round draws it.
"""

import json
from collections.abc import Sequence
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
from backend.learning import registry
from backend.learning.heads import Head
from backend.learning.layout import Axes, principal_axes
from backend.monitoring.drift import strangeness
from backend.pool.catalog import labelled
from backend.rounds.encoding import open_embeddings
from backend.settings import settings
from backend.studio.labels import LabelTask
from strategies import Task

log = structlog.get_logger()

MOST = 200_000  # items on a map; of a larger pool those of the smallest content hashes, a uniform draw that stays
_SAMPLE = 10_000  # items that the axes are fitted to
_AT_ONCE = 8_192
_GROWN = 2.0  # axes stay, so that items do, until there are so many times the items that they were fitted to
_KNOWN = 128  # labelled items that the others are compared with: enough to place one of a hundred
_NAMES = ("ids", "places", "classes", "doubts", "strangeness", "centre", "directions")
_FORMAT = "nextbatch-map-2"


@dataclass(frozen=True, eq=False)
class Map:
    """Items ``ids`` (n,) int64, ascending; ``places`` (n, 2) float32; ``classes`` (n,) int32, where the predicted class
    stands in `names`, -1 without a model or classes; ``doubts`` (n,) float32, as `Head.doubts` has them;
    ``strangeness`` (n,) float32, the share of labelled items that are more like others of them than the item is."""

    ids: NDArray[np.int64]
    places: NDArray[np.float32]
    classes: NDArray[np.int32]
    doubts: NDArray[np.float32]
    strangeness: NDArray[np.float32]
    axes: Axes
    names: tuple[str, ...]
    encoder_digest: str
    fitted_on: int
    version: str

    def save(self, path: Path) -> None:
        """Write a safetensors file in one step."""
        arrays = {name: getattr(self, name) for name in _NAMES[:5]}
        arrays |= {"centre": self.axes.centre, "directions": np.ascontiguousarray(self.axes.directions)}
        facts = {
            "names": self.names,
            "encoder": self.encoder_digest,
            "fitted_on": self.fitted_on,
            "version": self.version,
        }
        with whole(path, is_durable=False) as file:
            file.write(save(arrays, {"format": _FORMAT, "facts": json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path) -> "Map":
        """Read what `save` wrote. Raises MapUnreadable for anything else."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in _NAMES}
            facts = json.loads(metadata["facts"])
            axes = Axes(arrays.pop("centre"), arrays.pop("directions"))
            names = tuple(map(str, facts["names"]))
            return cls(**arrays, axes=axes, names=names, encoder_digest=str(facts["encoder"]),
                       fitted_on=int(facts["fitted_on"]), version=str(facts["version"]))  # fmt: skip
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise MapUnreadable(path=path, problem=error) from error


def map_path(project_id: int) -> Path:
    """The project's map, whether or not it is there."""
    return settings().home / "maps" / f"{project_id}.safetensors"


def refresh(project_id: int) -> None:
    """Draw the map anew: all encoded items, with what the champion says of them. What fails is a line in the log."""
    try:
        draw(project_id)
    except (NextbatchError, OSError) as problem:
        log.warning("map.not_drawn", project=project_id, problem=str(problem))


def draw(project_id: int) -> Map | None:
    """Draw and keep the map; None where nothing is encoded. Items that failed stay where they last were.

    About 4 CPU-seconds at 100,000 items of 1,792 numbers.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        version = registry.champion(session, project_id)
        rows = session.execute(
            sa.select(Item.id, Item.content_hash)
            .where(Item.project_id == project_id, Item.state == "encoded", Item.content_hash.is_not(None))
            .order_by(Item.content_hash, Item.id)
            .limit(MOST)
        ).all()
        asked = LabelTask.parse(project.label_config).question
        trained = sorted(row.content_hash for row in labelled(session, project_id, asked) if not row.is_holdout)
    if not rows:
        return None
    embeddings = open_embeddings(project)
    order = np.argsort(np.array([row[0] for row in rows], np.int64), kind="stable")
    stored = embeddings.store.locate([rows[at][1] or "" for at in order])
    ids, stored = np.array([rows[at][0] for at in order], np.int64)[stored >= 0], stored[stored >= 0]
    if not len(ids):
        return None
    is_ours = version is not None and version.encoder_digest == embeddings.digest
    head = registry.load_head(version) if version is not None and is_ours else None
    before = _known(project_id, embeddings.digest, len(ids))
    if before is None:
        sample = np.sort(np.random.default_rng(0).permutation(len(stored))[:_SAMPLE])
        axes, fitted_on = principal_axes(embeddings.store.gather(stored[sample])), len(ids)
    else:
        axes, fitted_on = before.axes, before.fitted_on
    there = embeddings.store.locate(trained)
    known = embeddings.store.gather(there[there >= 0][:_KNOWN])  # the smallest hashes: a uniform draw
    parts = [
        _part(embeddings.store.gather(stored[at : at + _AT_ONCE]), axes, head, known)
        for at in range(0, len(ids), _AT_ONCE)
    ]
    places, classes, doubts, strange = (np.concatenate(one) for one in zip(*parts, strict=True))
    names = head.classes if head is not None else ()
    drawn = Map(ids, places, classes, doubts, strange, axes, names, embeddings.digest, fitted_on,
                version.name if version is not None and head is not None else "")  # fmt: skip
    drawn = _with_failed(drawn, before, project_id)
    drawn.save(map_path(project_id))
    return drawn


def _part(embeddings: NDArray[Any], axes: Axes, head: Head | None, known: NDArray[Any]) -> Sequence[NDArray[Any]]:
    n, places, strange = len(embeddings), axes.place(embeddings), strangeness(known, embeddings)
    if head is None:
        return places, np.full(n, -1, np.int32), np.zeros(n, np.float32), strange
    said = head.predict(embeddings)
    best = np.full(n, -1) if head.task == Task.REGRESSION else said.argmax(axis=1)
    return places, best.astype(np.int32), head.doubts(said), strange


def _with_failed(drawn: Map, before: Map | None, project_id: int) -> Map:
    """Items that failed since they were on the map `before`, such as a file that was replaced by a damaged one, stay
    there as they were."""
    if before is None:
        return drawn
    with reading() as session:
        failed = session.scalars(sa.select(Item.id).where(Item.project_id == project_id, Item.state == "failed")).all()
    lost = np.isin(before.ids, np.array(failed, np.int64)) & ~np.isin(before.ids, drawn.ids)
    if not lost.any():
        return drawn
    place = {name: at for at, name in enumerate(drawn.names)}
    now = np.array([place.get(name, -1) for name in before.names] + [-1], np.int32)  # the last: of -1
    was = {name: getattr(before, name)[lost] for name in _NAMES[:5]} | {"classes": now[before.classes[lost]]}
    joined = {name: np.concatenate([getattr(drawn, name), was[name]]) for name in was}
    order = np.argsort(joined["ids"], kind="stable")
    return replace(drawn, **{name: values[order] for name, values in joined.items()})


def _known(project_id: int, digest: str, items: int) -> Map | None:
    """The map there is, if its axes will do."""
    try:
        before = Map.load(map_path(project_id))
    except MapUnreadable:
        return None
    return before if before.encoder_digest == digest and items < _GROWN * before.fitted_on else None

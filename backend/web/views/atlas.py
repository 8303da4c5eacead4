"""A project's map as a browser gets it: counts for the page, and the points as bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Item, Mark, Pick, Project
from backend.errors import MapUnreadable
from backend.learning import umap_run
from backend.rounds.atlas import Map, map_path
from backend.rounds.unfold import Unfolded, unfolded_path

STATES = ("pool", "batch", "labelled", "holdout", "first", "never", "failed")
MAGIC = b"NBM2"
_NONE = 65_535  # no class


@dataclass(frozen=True)
class MapView:
    """What the page says of the map: the items by state, the classes' names, the model that predicted, and whether the
    form by UMAP is `ready`, a worker has yet to make it (`waits`), or nobody can (`not installed`)."""

    items: int
    states: dict[str, int]
    classes: list[str]
    version: str
    umap: str


@dataclass(frozen=True)
class FailedOnMap:
    """How many items failed, and how many of those are on the map, where they were when they had an embedding."""

    count: int
    placed: int


def failed_on_map(session: Session, project: Project) -> FailedOnMap:
    """Whether or not there is a map."""
    failed, drawn = _failed(session, project), _drawn(project)
    return FailedOnMap(len(failed), 0 if drawn is None else len(_rows(drawn, failed)[1]))


def map_view(session: Session, project: Project) -> MapView | None:
    """None while no round has drawn it."""
    drawn = _drawn(project)
    if drawn is None:
        return None
    states, names, _ = _facts(session, project, drawn)
    counts = np.bincount(states, minlength=len(STATES))
    by_state = dict(zip(STATES, counts.tolist(), strict=True))
    umap = "ready" if _unfolded(project, drawn) else "waits" if umap_run.is_there() else "not installed"
    return MapView(len(drawn.ids), by_state, names, drawn.version, umap)


def points(session: Session, project: Project) -> bytes | None:
    """The map's points, little-endian: `NBM2`, n as uint32, then n each of id uint32; x and y int16, from -32,767 to
    32,767 over the wider side; class uint16 (65,535: none) among the page's names, people's before the model's; round
    uint16, the first batch that had it (0: none); doubt uint8, 255 the least sure; state uint8; strangeness uint8, 255
    the least like what is labelled. 15 n + 8 bytes."""
    drawn = _drawn(project)
    if drawn is None:
        return None
    states, _, classes = _facts(session, project, drawn)
    flat = _flat(drawn.places)
    parts = (
        MAGIC,
        np.array([len(drawn.ids)], "<u4").tobytes(),
        drawn.ids.astype("<u4").tobytes(),
        np.ascontiguousarray(flat[:, 0]).tobytes(),
        np.ascontiguousarray(flat[:, 1]).tobytes(),
        classes.astype("<u2").tobytes(),
        _rounds(session, project, drawn).astype("<u2").tobytes(),
        (drawn.doubts.clip(0, 1) * 255).round().astype("u1").tobytes(),
        states.astype("u1").tobytes(),
        (drawn.strangeness.clip(0, 1) * 255).round().astype("u1").tobytes(),
    )
    return b"".join(parts)


def unfolded_points(project: Project) -> bytes | None:
    """Where items are by UMAP, little-endian: `NBU1`, n as uint32, then n each of id uint32, and x and y int16 as on
    the map; None where it was not made. 8 n + 8 bytes."""
    drawn = _drawn(project)
    found = None if drawn is None else _unfolded(project, drawn)
    if found is None:
        return None
    flat = _flat(found.places)
    columns = (np.ascontiguousarray(flat[:, at]).tobytes() for at in (0, 1))
    return b"".join((b"NBU1", np.array([len(found.ids)], "<u4").tobytes(), found.ids.astype("<u4").tobytes(), *columns))


def _flat(places: NDArray[np.float32]) -> NDArray[np.int16]:
    """Places (n, 2) from -32,767 to 32,767 over the wider side."""
    low, high = places.min(axis=0), places.max(axis=0)
    reach = max(float((high - low).max()), 1e-9)
    flat: NDArray[np.int16] = (
        ((places - (low + high) / 2) / reach * 2 * 32_767).round().clip(-32_767, 32_767).astype("<i2")
    )
    return flat


def _unfolded(project: Project, drawn: Map) -> Unfolded | None:
    try:
        found = Unfolded.load(unfolded_path(project.id))
    except MapUnreadable:
        return None
    return found if found.encoder_digest == drawn.encoder_digest else None


def _drawn(project: Project) -> Map | None:
    try:
        return Map.load(map_path(project.id))
    except MapUnreadable:
        return None


def _facts(session: Session, project: Project, drawn: Map) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64]]:
    """States (n,), the classes' names, and classes (n,): people's before the model's."""
    states = np.zeros(len(drawn.ids), np.int64)
    newest = (
        sa.select(sa.func.max(Batch.id))
        .where(Batch.project_id == project.id, Batch.state == "published")
        .scalar_subquery()
    )
    _set(states, drawn, session.scalars(sa.select(Pick.item_id).where(Pick.batch_id == newest)).all(), 1)
    for kind, state in (("first", 4), ("never", 5)):
        marked = sa.select(Mark.item_id).where(Mark.project_id == project.id, Mark.kind == kind)
        _set(states, drawn, session.scalars(marked).all(), state)
    labels = session.execute(
        sa.select(Annotation.item_id, Annotation.label, Item.is_holdout)
        .join(Item, Item.id == Annotation.item_id)
        .where(Annotation.project_id == project.id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
        .order_by(Annotation.updated_at)
    ).all()
    _set(states, drawn, [item for item, _, is_holdout in labels if not is_holdout], 2)
    _set(states, drawn, [item for item, _, is_holdout in labels if is_holdout], 3)
    _set(states, drawn, _failed(session, project), 6)  # whether or not it has a label: no model learns from it
    names = list(dict.fromkeys((*drawn.names, *(str(label) for _, label, _ in labels))))[:_NONE]
    place = {name: at for at, name in enumerate(names)}
    classes = np.where(drawn.classes < 0, _NONE, drawn.classes).astype(np.int64)
    items = [item for item, _, _ in labels]
    is_there, rows = _rows(drawn, items)
    given = np.array([place.get(str(label), _NONE) for _, label, _ in labels], np.int64)
    classes[rows] = given[is_there]
    return states, names, classes


def _rounds(session: Session, project: Project, drawn: Map) -> NDArray[np.int64]:
    """The number of the first batch that had each item, (n,); 0 for none."""
    numbers = np.zeros(len(drawn.ids), np.int64)
    picked = session.execute(
        sa.select(Pick.item_id, sa.func.min(Batch.number))
        .join(Batch, Batch.id == Pick.batch_id)
        .where(Batch.project_id == project.id)
        .group_by(Pick.item_id)
    ).all()
    is_there, rows = _rows(drawn, [item for item, _ in picked])
    numbers[rows] = np.array([min(number, _NONE) for _, number in picked], np.int64)[is_there]
    return numbers


def _failed(session: Session, project: Project) -> Sequence[int]:
    return session.scalars(sa.select(Item.id).where(Item.project_id == project.id, Item.state == "failed")).all()


def _set(states: NDArray[np.int64], drawn: Map, items: Sequence[int], state: int) -> None:
    states[_rows(drawn, items)[1]] = state


def _rows(drawn: Map, items: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of these items are on the map, and at which rows those are."""
    wanted = np.array(items, np.int64)
    at = np.searchsorted(drawn.ids, wanted).clip(0, max(0, len(drawn.ids) - 1))
    is_there = drawn.ids[at] == wanted if len(wanted) else np.zeros(0, bool)
    return is_there, at[is_there]

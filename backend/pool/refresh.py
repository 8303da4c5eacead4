"""The catalogue brought up to a listing: what came, what changed, what is gone. Nothing is fetched for it."""

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Annotation, Item, reading, transaction
from backend.errors import PoolEmptied
from backend.pool import catalog
from backend.pool.catalog import NewItem


@dataclass(frozen=True)
class Refreshed:
    """How many items a listing found new, changed, no longer there, there again, and as they were."""

    added: int
    changed: int
    gone: int
    back: int
    unchanged: int


def refresh(
    project_id: int, listing: Iterable[NewItem], max_items: int | None = None, seed: int = 0, only_new: bool = False
) -> Refreshed:
    """Compare the pool's whole listing with the catalogue, by key and validator, in short transactions. Idempotent.

    An unchanged item keeps its state. A changed one forgets its content hash and is encoded again; one that nobody has
    read yet, or somebody reads at this moment, is found changed by the next listing after that. One that is listed
    no more is gone, unless it has a label: its embedding still teaches. One that is back unchanged is what it was.
    Items that never were in a listing, such as tasks, are left alone. An error of `listing` passes through: what was
    listed until then is taken, and nothing is gone by it. Nor by an empty one (a folder that is not mounted looks like
    that): it raises PoolEmptied.

    At most `max_items` listed ones are taken: of the new, a uniform sample that `seed` and the keys decide.
    `only_new` adds and does nothing else: safe beside a round, which may be reading an item as it was.
    Memory: 16 bytes an item, and the sample.
    """
    last_id, count = _listed_before(project_id)
    sample = None if max_items is None else _Sample(max(max_items - count, 0), seed)
    counts: Counter[str] = Counter()
    seen = array("q")
    for chunk in catalog.chunks(listing, catalog.INSERT_CHUNK):
        named = catalog.by_key(chunk)
        known = _known(project_id, named)
        seen.extend(row.id for row in known.values())
        new = {key: item for key, item in named.items() if key not in known}
        if sample is not None:
            sample.offer(new)
            new = {}
        changes = {} if only_new else _changes(known, named)
        counts.update(kind for kind, _ in changes.values())
        if new or changes:
            with transaction() as session:
                counts["added"] += catalog.insert_items(session, project_id, new)
                if changes:
                    session.execute(sa.update(Item), [values for _, values in changes.values()])
    for chunk in catalog.chunks(sample.chosen() if sample else (), catalog.INSERT_CHUNK):
        with transaction() as session:
            counts["added"] += catalog.insert_items(session, project_id, catalog.by_key(chunk))
    if not seen and not counts["added"] and count and not only_new:
        raise PoolEmptied(count=count)
    ids = np.unique(np.frombuffer(seen, np.int64))
    return Refreshed(
        added=counts["added"],
        changed=counts["changed"],
        gone=0 if only_new else _mark_gone(project_id, ids, last_id),
        back=counts["back"],
        unchanged=int((ids <= last_id).sum()) - counts["changed"] - counts["back"],
    )


class _Known(NamedTuple):
    id: int
    state: str
    validator: str | None
    content_hash: str | None


def _known(project_id: int, keys: Collection[str]) -> dict[str, _Known]:
    columns = (Item.key, Item.id, Item.state, Item.validator, Item.content_hash)
    with reading() as session:
        query = sa.select(*columns).where(Item.project_id == project_id, Item.key.in_(keys))
        rows = session.connection().execute(query).all()
    return {key: _Known(id_, state, validator, hash_) for key, id_, state, validator, hash_ in rows}


def _changes(known: Mapping[str, _Known], named: Mapping[str, NewItem]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By key, what happened to an item (`changed`, `back`, `listed` for the first time) and its columns' new values."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for key, item in known.items():
        validator = named[key].validator or ""
        is_same = item.validator == validator
        if is_same and item.state != "gone":
            continue
        anew = {"id": item.id, "state": "new", "content_hash": None, "failure": None, "validator": validator}
        if item.state == "gone":
            was = {"state": "encoded", "content_hash": item.content_hash} if is_same and item.content_hash else {}
            found[key] = ("back", anew | was)
        elif item.validator is None and item.state == "new":
            found[key] = ("listed", anew | {"content_hash": item.content_hash})
        elif item.state == "new":
            continue  # a scan may be reading it as it was: it changes once what it was is known
        else:  # where a listing names it for the first time, nobody knows whether it changed since it was read
            found[key] = ("changed", anew)
    return found


def _listed_before(project_id: int) -> tuple[int, int]:
    """The newest item's id, and how many items a listing named the last time."""
    of_project = sa.select(sa.func.max(Item.id)).where(Item.project_id == project_id)
    with reading() as session:
        listed = sa.select(sa.func.count()).select_from(Item).where(*_is_listed(project_id))
        return session.scalar(of_project) or 0, session.scalar(listed) or 0


def _is_listed(project_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Item.project_id == project_id, Item.validator.is_not(None), Item.state != "gone"


def _mark_gone(project_id: int, seen: NDArray[np.int64], last_id: int) -> int:
    """Items that an earlier listing named and this one does not, but for those with a label."""
    has_label = sa.exists().where(
        Annotation.item_id == Item.id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None)
    )
    with reading() as session:
        query = sa.select(Item.id).where(*_is_listed(project_id), Item.id <= last_id)
        listed = session.scalars(query.execution_options(yield_per=10_000))
        missing = np.setdiff1d(np.fromiter(listed, np.int64), seen)
    gone = 0
    for chunk in catalog.chunks(missing.tolist()):
        with transaction() as session:
            rows = session.scalars(sa.select(Item.id).where(Item.id.in_(chunk), ~has_label)).all()
            session.execute(sa.update(Item).where(Item.id.in_(rows)).values(state="gone"))
            gone += len(rows)
    return gone


class _Sample:
    """A uniform sample of what is offered, at most `size`: the items whose keyed hashes are the lowest."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._heap: list[tuple[int, int, str, NewItem]] = []  # highest hash first
        self._keys: set[str] = set()
        self._offered = 0

    def offer(self, items: Mapping[str, NewItem]) -> None:
        for key, item in items.items():
            self._offered += 1
            if key in self._keys or self._size == 0:
                continue
            digest = hashlib.blake2b(f"{self._seed}:{key}".encode(), digest_size=8).digest()
            entry = (-int.from_bytes(digest), self._offered, key, item)
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, entry)
            else:
                entry_out = heapq.heappushpop(self._heap, entry)
                self._keys.discard(entry_out[2])
                if entry_out is entry:
                    continue
            self._keys.add(key)

    def chosen(self) -> list[NewItem]:
        """The sample, in the order of the listing."""
        return [item for _, _, _, item in sorted(self._heap, key=lambda entry: entry[1])]

"""Vectors that nothing in the database refers to, and what becomes of them."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Annotation, EncoderChange, Item, ModelVersion, Project, reading
from backend.learning import registry
from backend.learning.snapshots import Snapshot
from backend.rounds.changes import OPEN
from backend.rounds.encoding import open_embeddings
from backend.scoring import compaction
from backend.scoring.vectors import VectorStore
from backend.settings import settings

_KEY_BYTES = 16  # of a sha256: enough to tell contents apart, and half the memory


@dataclass(frozen=True)
class Collected:
    """What was found in one encoder's store, and given up of it unless one only looked."""

    digest: str
    is_used: bool  # by a project or a model version
    vectors: int
    unwanted: int
    emptied_segments: int
    size_bytes: int


def collect(*, is_dry: bool) -> Iterator[Collected]:
    """Remove, store by store, what no project, label or model version refers to; or only count it.

    A store of an encoder that nothing uses goes as a whole. Raises VectorsInUse while a scan runs, VectorsDamaged.
    """
    used = _used_digests()
    for left in (settings().home / "vectors").glob(".gone-*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    for folder in sorted(path.parent for path in (settings().home / "vectors").glob("*/index.db")):
        store = VectorStore.at(folder)
        count, size_bytes = len(store), store.size_bytes()
        if store.digest not in used and (is_dry or _delete(store)):
            yield Collected(store.digest, False, count, count, 0, size_bytes)
        elif is_dry:
            unwanted = compaction.unwanted(store, wanted())
            yield Collected(store.digest, True, count, unwanted, 0, size_bytes)
        else:
            removed = compaction.clean(store, wanted)
            yield Collected(store.digest, True, count, removed, compaction.compact(store), size_bytes)
        store.close()


def wanted() -> compaction.IsWanted:
    """Contents of items that are there or labelled, and of the data that existing model versions were made from."""
    has_label = sa.exists().where(Annotation.item_id == Item.id)
    query = sa.select(Item.content_hash).where(Item.content_hash.is_not(None), (Item.state != "gone") | has_label)
    with reading() as session:
        hashes = session.scalars(query.execution_options(yield_per=10_000))
        keys = [_keys(list(part)) for part in hashes.partitions()]
        kept = sa.select(ModelVersion.snapshot).where(ModelVersion.state != "deleted", ModelVersion.snapshot != "")
        snapshots = session.scalars(kept.distinct()).all()
    for digest in snapshots:
        snapshot = Snapshot.read(registry.snapshot_path(digest), digest)
        keys.append(_keys([row.content_hash for row in snapshot.rows]))
    known = np.unique(np.concatenate(keys)) if keys else np.empty(0, f"S{_KEY_BYTES}")

    def is_wanted(hashes: Sequence[str]) -> NDArray[np.bool_]:
        asked = _keys(hashes)
        if not len(known):
            return np.zeros(len(asked), bool)
        is_known: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
        return is_known

    return is_wanted


def _keys(hashes: Sequence[str | None]) -> NDArray[np.bytes_]:
    return np.array([bytes.fromhex(hash_ or "")[:_KEY_BYTES] for hash_ in hashes], f"S{_KEY_BYTES}")


def _used_digests() -> set[str]:
    with reading() as session:
        versions = sa.select(ModelVersion.encoder_digest).where(ModelVersion.state != "deleted").distinct()
        used = set(session.scalars(versions))
        ahead = session.scalars(sa.select(EncoderChange.encoder).where(EncoderChange.state.in_(OPEN)))
        used |= {encoder["digest"] for encoder in ahead if encoder["digest"]}
        projects = session.scalars(sa.select(Project)).all()
    return used | {open_embeddings(project).digest for project in projects}


def _delete(store: VectorStore) -> bool:
    """Out of the way by a rename first: cut short, nobody takes half of a store for a whole one.

    False where its encoder came into use while others were cleaned, which takes minutes; then it stays.
    """
    with store.held(fcntl.LOCK_EX | fcntl.LOCK_NB):
        if store.digest in _used_digests():
            return False
        gone = store.path.rename(store.path.with_name(f".gone-{uuid.uuid4().hex}"))
    shutil.rmtree(gone, ignore_errors=True)
    return True

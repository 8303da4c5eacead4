"""Vectors on their way from a worker that does not share the home to the vector store of one that does."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Job, Parcel, reading, transaction
from backend.pool import catalog
from backend.rounds.encoding import Embeddings
from backend.scoring.vectors import storable

AT_ONCE = 16  # parcels a write to the store: half a second of a scan each


class Outbox:
    """The `Store` of such a worker's scan. Rows wait in memory until the scan says whose they are; then they are sent
    with those items in one transaction. May be called from many threads."""

    def __init__(self, job_id: int, dims: int) -> None:
        self._job_id = job_id
        self._dims = dims
        self._waiting: dict[str, NDArray[np.generic]] = {}
        self._sent: set[str] = set()
        self._lock = threading.Lock()

    def locate(self, hashes: Sequence[str]) -> NDArray[np.int64]:
        """0 for the contents that this job encoded, -1 for all others, int64 (n,)."""
        with self._lock:
            is_here = [hash_ in self._waiting or hash_ in self._sent for hash_ in hashes]
        return np.where(is_here, 0, -1).astype(np.int64)

    def put(self, hashes: Sequence[str], rows: NDArray[np.float32]) -> int:
        """Take rows (n, dims). Raises BadVectors."""
        values = storable(rows, (len(hashes), self._dims), np.dtype(np.float16))
        with self._lock:
            self._waiting.update(zip(hashes, values, strict=True))
        return len(hashes)

    def send(self, items: Mapping[int, str]) -> None:
        """Send these items, content hash by id, with the rows of theirs that were not sent before."""
        with self._lock:
            fresh = [hash_ for hash_ in dict.fromkeys(items.values()) if hash_ in self._waiting]
            rows = b"".join(self._waiting[hash_].tobytes() for hash_ in fresh)
        with transaction() as session:
            session.add(
                Parcel(
                    job_id=self._job_id, item_ids=list(items), hashes=list(items.values()), row_hashes=fresh, rows=rows
                )
            )
        with self._lock:
            self._sent.update(fresh)
            for hash_ in fresh:
                del self._waiting[hash_]


def drain(project_id: int, embeddings: Embeddings) -> int:
    """Store what was sent for this project, and mark its items as encoded; returns how many. Safe to be cut short:
    a parcel is deleted in the transaction that marks its items, after its rows are on disk."""
    stored = 0
    query = (
        sa.select(Parcel, Job.encoder_digest)
        .join(Job, Job.id == Parcel.job_id)
        .where(Job.project_id == project_id)
        .order_by(Parcel.id)
        .limit(AT_ONCE)
    )
    while True:
        with reading() as session:
            arrived = session.execute(query).all()
        if not arrived:
            return stored
        parcels = [parcel for parcel, digest in arrived if digest == embeddings.digest]  # others: the encoder changed
        rows = np.frombuffer(b"".join(parcel.rows for parcel in parcels), np.float16).reshape(-1, embeddings.spec.dims)
        embeddings.store.put([hash_ for parcel in parcels for hash_ in parcel.row_hashes], rows)
        items = {key: hash_ for p in parcels for key, hash_ in zip(p.item_ids, p.hashes, strict=True)}
        with transaction() as session:
            if items:
                catalog.mark_encoded(session, items)
            session.execute(sa.delete(Parcel).where(Parcel.id.in_([parcel.id for parcel, _ in arrived])))
        stored += len(items)

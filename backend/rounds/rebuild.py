"""Make a version's head again from its record, its snapshot and the stored embeddings, and compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from backend.database import ModelVersion
from backend.errors import NotRebuildable
from backend.learning import registry
from backend.learning.candidates import Unlabelled
from backend.learning.heads import Head
from backend.learning.loans import load_loan
from backend.learning.provenance import provenance
from backend.learning.snapshots import Row, Snapshot
from backend.learning.targets import target_from
from backend.learning.tuning import tuned_from
from backend.rounds.comparison import vectors
from backend.rounds.graph import as_keys, reader
from backend.rounds.learn import familiar


@dataclass(frozen=True)
class Verdict:
    """Whether the head could be made again.

    ``answer``: "equal" is the same digest, bit for bit. "close" is another digest, and no probability of a labelled
    item differs by more than 0.01: other library versions or another processor round differently. "different" is
    anything else. ``largest_gap`` is the largest difference of a probability on the ``labels`` trained on, None
    where the old head is gone. ``changed`` names what the record says and this machine is not.
    """

    answer: Literal["equal", "close", "different"]
    recorded: str
    rebuilt: str
    labels: int
    largest_gap: float | None
    changed: tuple[str, ...]


CLOSE = 0.01


def verify(version: ModelVersion) -> Verdict:
    """Fit the version's head again, on the threads and with the seed of its record. The new head is not kept.

    Raises NotRebuildable for a version from before the record was kept, SnapshotUnreadable, VectorsMissing, and
    LoanUnreadable where the neighbour graph that it was fitted with is gone.
    """
    rebuilt, rows = _refit(version)
    gap = _largest_gap(version, rebuilt, rows)
    if rebuilt.digest == version.head_digest:
        answer: Literal["equal", "close", "different"] = "equal"
    else:
        answer = "close" if gap is not None and gap <= CLOSE else "different"
    now = provenance()
    changed = tuple(name for name in ("libraries", "python", "machine") if version.lineage.get(name) != now[name])
    return Verdict(answer, version.head_digest, rebuilt.digest, len(rows), gap, changed)


def _refit(version: ModelVersion) -> tuple[Head, list[Row]]:
    lineage = version.lineage
    missing = [name for name in ("classes", "features", "threads", "graph_nodes") if name not in lineage]
    if missing or (lineage["graph_nodes"] and "loan" not in lineage):
        missing = missing or ["the neighbour graph"]
        raise NotRebuildable(version=version.name, missing=", ".join(missing))
    rows = _trained_on(Snapshot.read(registry.snapshot_path(version.snapshot), version.snapshot))
    target = target_from(lineage)
    store = vectors(version.encoder_digest, lineage["features"])
    hashes = [row.content_hash for row in rows]
    lent: Unlabelled | None = None
    if lineage["graph_nodes"]:
        path = registry.loan_path(lineage["loan"])
        lent = load_loan(path, as_keys(hashes), reader(store))
    labels = target.encode([row.label for row in rows])
    known = familiar(version.encoder_digest, hashes)
    if int(known.sum()) != lineage.get("familiar", 0):
        raise NotRebuildable(version=version.name, missing="what its encoder was fine-tuned on")
    x = store.gather(hashes)
    with _threads(int(lineage["threads"])):
        fit = target.fit(
            x,
            labels,
            lent,
            seed=version.seed,
            balanced=lineage.get("balanced", False),
            kind=lineage.get("head_kind", "linear"),
            familiar=known,
            tuned=tuned_from(lineage.get("tuning")),
        )
    return fit.head, rows


def _trained_on(snapshot: Snapshot) -> list[Row]:
    """One row an item, in the order in which a round reads them: by the item's number."""
    items = {row.item_id: row for row in snapshot.rows if row.split == "train"}
    return [items[item_id] for item_id in sorted(items, key=int)]


def _largest_gap(version: ModelVersion, rebuilt: Head, rows: list[Row]) -> float | None:
    if version.state == "deleted":
        return None
    store = vectors(version.encoder_digest, rebuilt.features)
    embeddings = store.gather([row.content_hash for row in rows])
    before = registry.load_head(version).predict(embeddings)
    return float(np.abs(before - rebuilt.predict(embeddings)).max())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Sums are taken in another order on another number of threads, and differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

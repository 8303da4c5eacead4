"""Data snapshots beside each other: what was added, removed, relabelled; who saw an annotation; as a table."""

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.artefacts import whole
from backend.database import ModelVersion
from backend.errors import ExportRefused, PackageMissing
from backend.learning import registry
from backend.learning.snapshots import Row, Snapshot
from backend.questions import question

_DIGEST_CHARACTERS = 64
_SHORTEST = 8


@dataclass(frozen=True)
class Relabelled:
    """An item whose label differs between two snapshots."""

    item_id: str
    before: str
    after: str


@dataclass(frozen=True)
class ClassShare:
    """A class among the items of two snapshots: how many, and which share, in [0, 1]."""

    label: str
    before: int
    after: int
    share_before: float
    share_after: float


@dataclass(frozen=True)
class Difference:
    """What lies between two snapshots, by item. Ids are sorted; ``moved`` items changed between train and holdout.

    ``recontented`` items kept their id and have other bytes. A class that neither has is not listed.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]
    moved: tuple[str, ...]
    recontented: tuple[str, ...]
    is_config_changed: bool
    classes: tuple[ClassShare, ...]


def differ(before: Snapshot, after: Snapshot) -> Difference:
    """How `after` differs from `before`. All rows of an item have one label: what its annotations come to.

    An item with several names counts for the share of each.
    """
    old, new = ({row.item_id: row for row in snapshot.rows} for snapshot in (before, after))
    both = sorted(old.keys() & new.keys())
    counts = [
        Counter(name for row in rows.values() for name in question(snapshot.task, ()).names(row.label))
        for snapshot, rows in ((before, old), (after, new))
    ]
    totals = [max(1, len(rows)) for rows in (old, new)]
    return Difference(
        before=before.digest,
        after=after.digest,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        relabelled=tuple(
            Relabelled(id_, old[id_].label, new[id_].label) for id_ in both if old[id_].label != new[id_].label
        ),
        moved=tuple(id_ for id_ in both if old[id_].split != new[id_].split),
        recontented=tuple(id_ for id_ in both if old[id_].content_hash != new[id_].content_hash),
        is_config_changed=before.label_config_hash != after.label_config_hash,
        classes=tuple(
            ClassShare(name, counts[0][name], counts[1][name], counts[0][name] / totals[0], counts[1][name] / totals[1])
            for name in sorted(counts[0].keys() | counts[1].keys())
        ),
    )


def open_snapshot(session: Session, project_id: int, name: str) -> Snapshot:
    """The snapshot of a version (``v7``, champion) or with that digest; 8 characters of it are enough if unique.

    Raises UnknownVersion, SnapshotUnreadable.
    """
    if _SHORTEST <= len(name) <= _DIGEST_CHARACTERS and set(name) <= set("0123456789abcdef"):
        query = sa.select(ModelVersion.snapshot).distinct().where(ModelVersion.project_id == project_id)
        found = session.scalars(query.where(ModelVersion.snapshot.startswith(name))).all()
        if len(found) == 1:
            return Snapshot.read(registry.snapshot_path(found[0]))
    version = registry.find(session, project_id, name)
    return Snapshot.read(registry.snapshot_path(version.snapshot), version.snapshot)


def saw(session: Session, project_id: int, annotation_id: str) -> list[tuple[ModelVersion, list[Row]]]:
    """The versions whose snapshot holds the annotation, oldest first, with its rows there.

    A snapshot that cannot be read is an error, not a no. Reads every snapshot of the project once.
    """
    versions = reversed(registry.versions(session, project_id))
    read: dict[str, list[Row]] = {}
    found: list[tuple[ModelVersion, list[Row]]] = []
    for version in versions:
        if not version.snapshot:
            continue
        if version.snapshot not in read:
            rows = Snapshot.read(registry.snapshot_path(version.snapshot)).rows
            read[version.snapshot] = [row for row in rows if row.annotation_id == annotation_id]
        if read[version.snapshot]:
            found.append((version, read[version.snapshot]))
    return found


def write_table(snapshot: Snapshot, out: Path) -> Path:
    """Write the rows as a table, .csv or .parquet by the name of `out`, which must not exist.

    Columns are the fields of `Row`, all text. The label configuration's hash and the snapshot's digest are in
    Parquet's metadata. Raises ExportRefused; PackageMissing where Parquet needs pyarrow.
    """
    if out.exists():
        raise ExportRefused(path=out, problem="it is there already")
    if out.suffix not in {".csv", ".parquet"}:
        raise ExportRefused(path=out, problem="its name must end in .csv or .parquet")
    data = _parquet(snapshot) if out.suffix == ".parquet" else _csv(snapshot)
    with whole(out) as file:
        file.write(data)
    return out


def _columns() -> list[str]:
    return [field.name for field in fields(Row)]


def _csv(snapshot: Snapshot) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, snapshot.rows))
    return text.getvalue().encode()


def _parquet(snapshot: Snapshot) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PackageMissing(what="Writing Parquet", package="pyarrow", extra="parquet") from None
    metadata = {"nextbatch_snapshot": snapshot.digest, "label_config_hash": snapshot.label_config_hash}
    schema = pyarrow.schema([(name, pyarrow.string()) for name in _columns()], metadata=metadata)
    table = pyarrow.Table.from_pylist([asdict(row) for row in snapshot.rows], schema=schema)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content

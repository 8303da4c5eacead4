"""The data that a model was trained on: an immutable, sorted, named list of labels."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from backend.artefacts import whole
from backend.errors import SnapshotUnreadable
from strategies import Task

Split = Literal["train", "holdout"]

_FORMAT = "nextbatch-snapshot-1"
_MAX_TEXT_BYTES = 4 * 2**30
_MAX_LINE_BYTES = 2**20


@dataclass(frozen=True, order=True)
class Row:
    """One label: whose item, of which content (hash), what, by which annotation and annotator, for which split.

    ``label`` is the class's name, or a set of names as JSON; ids are kept as text. An item may have several rows, one
    per annotation.
    """

    item_id: str
    annotation_id: str
    content_hash: str
    label: str
    annotator: str
    split: Split


@dataclass(frozen=True)
class Snapshot:
    """Labels under one label configuration; `of` sorts them, so the same data always has the same name.

    task: the kind of question that the labels answer, which says how they are written (`backend.questions`).
    """

    label_config_hash: str
    rows: tuple[Row, ...]
    task: str = Task.CLASSIFICATION

    @classmethod
    def of(cls, label_config_hash: str, rows: Iterable[Row], task: str = Task.CLASSIFICATION) -> "Snapshot":
        """The snapshot of ``rows`` in any order. Raises ValueError if one annotation of an item comes twice."""
        ordered = tuple(sorted(rows))
        for before, after in pairwise(ordered):
            if (before.item_id, before.annotation_id) == (after.item_id, after.annotation_id):
                raise ValueError(f"annotation {after.annotation_id} of item {after.item_id} comes twice")
        return cls(label_config_hash, ordered, str(task))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over the lines that `write` writes: the snapshot's name."""
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line)
        return digest.hexdigest()

    def write(self, directory: Path) -> Path:
        """Write ``DIGEST.jsonl.gz`` in one step and return its path; a snapshot that is there already stays.

        The same rows give the same bytes: gzip without a time or a name.
        """
        path = directory / f"{self.digest}.jsonl.gz"
        if path.exists():
            return path
        with (
            whole(path, 0o444) as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed,
        ):
            packed.writelines(self._lines())
        return path

    @classmethod
    def read(cls, path: Path, digest: str | None = None) -> "Snapshot":
        """Read what `write` wrote and check it against ``digest``, by default the name of the file.

        Raises SnapshotUnreadable for a file that is missing, cut, changed, or something else.
        """
        wanted = digest or path.name.removesuffix(".jsonl.gz")
        try:
            lines = _read_lines(path)
            header = json.loads(next(lines, b"{}"))
            if not isinstance(header, dict) or header.get("format") != _FORMAT:
                raise SnapshotUnreadable(path=path, problem="it is not a snapshot written by nextbatch")
            task = str(header.get("task", Task.CLASSIFICATION))
            snapshot = cls.of(str(header["label_config_hash"]), (_row(line) for line in lines), task)
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SnapshotUnreadable(path=path, problem=str(error) or type(error).__name__) from error
        if snapshot.digest != wanted:
            raise SnapshotUnreadable(path=path, problem=f"its content is {snapshot.digest}, not {wanted}")
        return snapshot

    def _lines(self) -> Iterator[bytes]:
        header = {"format": _FORMAT, "label_config_hash": self.label_config_hash, "rows": len(self.rows)}
        if self.task != Task.CLASSIFICATION:  # which older snapshots do not name
            header["task"] = self.task
        for line in (header, *map(asdict, self.rows)):
            yield json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _read_lines(path: Path) -> Iterator[bytes]:
    """Lines of a gzip file, with limits on one line and on all: a small file can unpack to a huge one."""
    total = 0
    with gzip.open(path, "rb") as file:
        while line := file.readline(_MAX_LINE_BYTES + 1):
            total += len(line)
            if len(line) > _MAX_LINE_BYTES or total > _MAX_TEXT_BYTES:
                raise ValueError("it unpacks to more than a snapshot may hold")
            yield line


def _row(line: bytes) -> Row:
    values: Any = json.loads(line)
    names = [field.name for field in fields(Row)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ValueError(f"a row has other fields than {', '.join(names)}")
    if not all(isinstance(value, str) for value in values.values()) or values["split"] not in get_args(Split):
        raise ValueError("a row has a value of a wrong type")
    return Row(**values)

"""Manifests: a CSV, JSON-lines or Parquet file that names items, one a row; its other columns become the items' data.

Rows are read one after the other. One that cannot be used is left out with its line, and the next is read.
"""

import asyncio
import csv
import datetime as dt
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from backend.errors import MissingSetting, PoolUnreadable
from backend.pool.catalog import NewItem
from backend.pool.files import open_below
from backend.pool.skipped import Skipped
from backend.pool.sources import SourceConfig, Sources

LINE_BYTES = 2**20
REMOTE_BYTES = 256 * 2**20  # a manifest that is fetched is held in memory
_TIMEOUT_S = 300.0
_PARQUET_ROWS = 5_000

Row = tuple[str, Mapping[str, Any]]
"""Where the row stands, for people, and its columns."""


def read_manifest(path: str, uri_field: str, config: SourceConfig, skipped: Skipped) -> Iterator[NewItem]:
    """The items that a manifest names: a file below the data root, or an address that the project may read.

    Raises an ItemUnreadable where it cannot be opened, PoolUnreadable where it is no manifest.
    """
    suffix = Path(urlsplit(path).path).suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise PoolUnreadable(path=path, problem=f"its name must end in one of {', '.join(_READERS)}")
    with _opened(path, config) as file:
        yield from _items(reader(path, file, uri_field, skipped), uri_field, skipped)


def read_lines(file: BinaryIO, uri_field: str, skipped: Skipped) -> Iterator[NewItem]:
    """The items of JSON lines as they arrive, one object a line; nothing but the line is held in memory."""
    return _items(_json_lines("", file, uri_field, skipped), uri_field, skipped)


def _items(rows: Iterator[Row], uri_field: str, skipped: Skipped) -> Iterator[NewItem]:
    for place, row in rows:
        uri = row.get(uri_field)
        if not isinstance(uri, str) or not uri.strip() or "\0" in uri:
            skipped.add(f"no address in {uri_field!r}", place)
        elif not _is_utf8(uri):
            skipped.add("not UTF-8", place)
        else:
            try:
                data = {_plain(name): _plain(value) for name, value in row.items() if name != uri_field}
            except RecursionError:
                skipped.add("nested too deep", place)
                continue
            yield NewItem(uri, data, validator="")


@contextmanager
def _opened(path: str, config: SourceConfig) -> Iterator[BinaryIO]:
    if "://" in path and not path.startswith("file://"):

        async def fetch() -> bytes:
            async with Sources(replace(config, max_bytes=REMOTE_BYTES, timeout_s=_TIMEOUT_S)) as sources:
                return (await sources.fetch(path)).data

        yield io.BytesIO(asyncio.run(fetch()))
        return
    if config.data_root is None:
        raise MissingSetting(name="NEXTBATCH_DATA_ROOT", mend="Set it to a folder above the manifest.")
    with open_below(config.data_root, path.removeprefix("file://")) as file:
        yield file


class _Lines:
    """Lines as text. Bytes that are no UTF-8 become lone surrogates; a line that is too long raises csv.Error once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_BYTES)
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) < LINE_BYTES or line.endswith(b"\n"):
            return line.decode(errors="surrogateescape")
        while line and not line.endswith(b"\n"):
            line = self._file.readline(LINE_BYTES)
        raise csv.Error(f"a line of more than {LINE_BYTES} bytes")


def _csv(path: str, file: BinaryIO, uri_field: str, skipped: Skipped, delimiter: str = ",") -> Iterator[Row]:
    lines = _Lines(file)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        first = lines.number + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            skipped.add(f"not CSV ({error})", _place(first, lines.number))
            continue
        if not record:
            continue
        if header is None:
            header = record
            _check_columns(path, uri_field, header)
        elif len(record) != len(header):
            skipped.add(f"not {len(header)} columns, as the first line has", _place(first, lines.number))
        elif not _is_utf8("".join(record)):
            skipped.add("not UTF-8", _place(first, lines.number))
        else:
            yield _place(first, lines.number), dict(zip(header, record, strict=True))


def _tsv(path: str, file: BinaryIO, uri_field: str, skipped: Skipped) -> Iterator[Row]:
    return _csv(path, file, uri_field, skipped, delimiter="\t")


def _json_lines(_path: str, file: BinaryIO, _uri_field: str, skipped: Skipped) -> Iterator[Row]:
    lines = _Lines(file)
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            skipped.add(str(error), _place(lines.number, lines.number))
            continue
        if not line.strip():
            continue
        place = _place(lines.number, lines.number)
        if not _is_utf8(line):
            skipped.add("not UTF-8", place)
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            skipped.add("not JSON", place)
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            skipped.add("no JSON object", place)


def _parquet(path: str, file: BinaryIO, uri_field: str, _skipped: Skipped) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PoolUnreadable(path=path, problem="Parquet needs pyarrow: pip install 'nextbatch[parquet]'") from None
    number = 0
    try:
        table = parquet.ParquetFile(file)
        _check_columns(path, uri_field, table.schema_arrow.names)
        for batch in table.iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if number == 0:
            raise PoolUnreadable(path=path, problem=f"no readable Parquet file ({error})"[:200]) from None
        raise PoolUnreadable(path=path, problem=f"damaged after row {number} ({error})"[:200]) from None


_READERS: dict[str, Callable[[str, BinaryIO, str, Skipped], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


SUFFIXES = frozenset(_READERS)


def _check_columns(path: str, uri_field: str, columns: Iterable[str]) -> None:
    if uri_field not in columns:
        known = ", ".join(columns)[:200]
        raise PoolUnreadable(path=path, problem=f"it has no column {uri_field!r}; set pool.uri_field to one of {known}")


def _place(first: int, last: int) -> str:
    return f"line {first}" if last <= first else f"lines {first} to {last}"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """As JSON that every database takes: no NaN, no bytes, no lone surrogates, moments as text."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return value if _is_utf8(value) else value.encode(errors="replace").decode()
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_plain(str(name)): _plain(below) for name, below in value.items()}
        case list() | tuple():
            return [_plain(below) for below in value]
        case bytes():
            return None
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return str(value)

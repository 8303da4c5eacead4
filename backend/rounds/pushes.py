"""Items that come through the API: pushed one a line, or named by a manifest. Torch-free.

A push is idempotent: an item that is known stays what it is. It writes in short transactions, so that a large one lets
webhooks in; cut short, what was written is there, and the same push again adds the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from backend.database import Project, transaction
from backend.errors import AddressForbidden, BucketForbidden, ItemUnreadable
from backend.pool import catalog
from backend.pool.addresses import checker
from backend.pool.catalog import NewItem
from backend.pool.http import shown
from backend.pool.manifest import read_lines, read_manifest
from backend.pool.skipped import Skipped
from backend.pool.texts import MAX_BYTES
from backend.rounds.encoding import source_config
from backend.studio.labels import LabelTask

_MOST_REASONS = 20  # lines of an answer


@dataclass(frozen=True)
class Pushed:
    """How many items were new and how many were known; what was refused, a line a reason with the first places."""

    added: int
    known: int
    refused: int
    reasons: list[str]


def push_lines(project: Project, file: BinaryIO) -> Pushed:
    """Items as JSON lines: each an object with `uri` (or `text`, where items are texts), the rest is their data."""
    skipped = Skipped()
    return _push(project, read_lines(file, field_of(project), skipped), skipped)


def push_manifest(project: Project, address: str, uri_field: str) -> Pushed:
    """Items that a manifest names, which the project must be allowed to read. Raises as `read_manifest` does."""
    skipped = Skipped()
    return _push(project, read_manifest(address, uri_field, source_config(project.settings), skipped), skipped)


def push_named(project: Project, uris: Sequence[str], texts: Sequence[str]) -> Pushed:
    """Items by their addresses alone; or by their texts, where items are texts."""
    skipped = Skipped()
    given, others = (texts, uris) if field_of(project) == "text" else (uris, texts)
    for other in others:
        skipped.add(f"not a {field_of(project)}", shown(other)[:40])
    return _push(project, _sound(given, skipped), skipped)


def _sound(given: Sequence[str], skipped: Skipped) -> Iterator[NewItem]:
    for uri in given:
        if not uri.strip() or catalog.storable(uri) != uri:
            skipped.add("empty, or with characters that are none", "")
        else:
            yield NewItem(uri)


def field_of(project: Project) -> str:
    """What an item's address, or the text that it is, is called in a line."""
    return "text" if LabelTask.parse(project.label_config).is_inline else "uri"


def _push(project: Project, items: Iterable[NewItem], skipped: Skipped) -> Pushed:
    added = seen = 0
    for chunk in catalog.chunks(_readable(project, items, skipped), catalog.INSERT_CHUNK):
        with transaction() as session:
            added += catalog.add_items(session, project.id, chunk)
        seen += len(chunk)
    return Pushed(added, seen - added, skipped.counts.total(), skipped.lines()[:_MOST_REASONS])


def _readable(project: Project, items: Iterable[NewItem], skipped: Skipped) -> Iterable[NewItem]:
    """Those whose address could be read; no listing names them, so none takes them away."""
    is_inline = LabelTask.parse(project.label_config).is_inline
    check = checker(source_config(project.settings))
    for item in items:
        uri = catalog.storable(item.uri) if is_inline else item.uri
        if is_inline and len(uri.encode()) > MAX_BYTES:
            skipped.add(f"a text of more than {MAX_BYTES} bytes", uri[:40])
            continue
        if not is_inline:
            try:
                check(uri)
            except ItemUnreadable as problem:
                skipped.add(_reason(problem), shown(uri))
                continue
        yield replace(item, uri=uri, validator=None)


def _reason(problem: ItemUnreadable) -> str:
    """The refusal without the address, which differs from item to item."""
    match problem:
        case AddressForbidden():
            return "its host is not public, and not in pool.allow_hosts"
        case BucketForbidden():
            return "not below a bucket or prefix in pool.allow_buckets"
        case _:
            return str(problem.facts.get("problem", "it names nothing"))

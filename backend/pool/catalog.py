"""The catalogue of items: what there is, what is encoded, what failed, what has a label. All of it in the database."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.database import Annotation, Item, now
from backend.questions import Question

T = TypeVar("T")
CHUNK = 500  # rows a statement: SQLite allows 32,766 variables, and a short transaction lets the web process in
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
_MARK_ENCODED = sa.text(
    "UPDATE items SET content_hash = given.hash, state = 'encoded', failure = NULL "
    "FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS text[])) AS given (id, hash) WHERE items.id = given.id"
)
_MARK_ENCODED_ONE = (  # not through the ORM: a tenth of the scan's thread
    sa.update(Item)
    .where(Item.id == sa.bindparam("item_id"))
    .values(content_hash=sa.bindparam("hash"), state="encoded", failure=None)
)
INSERT_CHUNK = 5_000  # rows a transaction where they are many: 40 ms on SQLite


@dataclass(frozen=True)
class NewItem:
    """An item as it arrives. `key` defaults to the hash of its URI (or text); `Item` says what a `validator` is."""

    uri: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task_id: int | None = None
    is_holdout: bool = False
    key: str = ""
    validator: str | None = None


@dataclass(frozen=True)
class Labelled:
    """An item with the label that its annotations come to; `annotations` are those that make it so: id to annotator."""

    item_id: int
    content_hash: str
    label: str
    is_holdout: bool
    annotations: Mapping[int, str]


@dataclass(frozen=True)
class Candidates:
    """The pool: encoded items without a label. `ids` (n,) int64; `hashes` has n content hashes, in the same order."""

    ids: NDArray[np.int64]
    hashes: tuple[str, ...]


def chunks(rows: Iterable[T], size: int = CHUNK) -> Iterable[list[T]]:
    """`rows` in lists of at most `size`."""
    rest = iter(rows)
    while chunk := list(islice(rest, size)):
        yield chunk


def storable(text: str) -> str:
    """As every database takes it: what is no character (a NUL, half a surrogate pair) becomes U+FFFD."""
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)


def item_key(uri: str) -> str:
    """40 hex digits of the URI's sha256: the name that a task carries as `nextbatch_key`."""
    return hashlib.sha256(uri.encode()).hexdigest()[:40]


def add_items(session: Session, project_id: int, items: Iterable[NewItem]) -> int:
    """Add what is new and fill in task ids that became known. Returns how many were new. Idempotent."""
    added = 0
    for chunk in chunks(items, INSERT_CHUNK):
        named = by_key(chunk)
        rows = session.execute(
            sa.select(Item.key, Item.id, Item.task_id).where(Item.project_id == project_id, Item.key.in_(named))
        )
        known = {key: (item_id, task_id) for key, item_id, task_id in rows}
        added += insert_items(session, project_id, {key: new for key, new in named.items() if key not in known})
        moved = [
            {"id": item_id, "task_id": named[key].task_id}
            for key, (item_id, task_id) in known.items()
            if named[key].task_id not in (None, task_id)
        ]
        if moved:
            session.execute(sa.update(Item), moved)
    return added


def assign_tasks(session: Session, project_id: int, task_ids: Mapping[str, int]) -> None:
    """Record which task an item has: key to task id."""
    is_item = (Item.project_id == project_id, Item.key == sa.bindparam("item_key"))
    rows = [{"item_key": key, "task": task_id} for key, task_id in task_ids.items()]
    session.connection().execute(sa.update(Item).where(*is_item).values(task_id=sa.bindparam("task")), rows)


def by_key(items: Iterable[NewItem]) -> dict[str, NewItem]:
    """Items by their key, in order; of several with one key the first."""
    named: dict[str, NewItem] = {}
    for item in items:
        named.setdefault(item.key or item_key(item.uri), item)
    return named


def insert_items(session: Session, project_id: int, items: Mapping[str, NewItem]) -> int:
    """Insert items, by key; those that somebody else inserted meanwhile stay as they are. Returns how many came in."""
    if not items:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [
        {
            "project_id": project_id,
            "key": key,
            "uri": item.uri,
            "data": dict(item.data),
            "task_id": item.task_id,
            "is_holdout": item.is_holdout,
            "validator": item.validator,
        }
        for key, item in items.items()
    ]
    common = {"state": "new", "created_at": now()}
    inserted = session.connection().execute(
        insert(Item).values(common).on_conflict_do_nothing(), rows, execution_options={"preserve_rowcount": True}
    )
    return inserted.rowcount


def mark_encoded(session: Session, hashes: Mapping[int, str]) -> None:
    """Record the content hash of items that are in the embedding store: item id to sha256."""
    if session.get_bind().dialect.name == "postgresql":  # one statement: half the time, a fifth of ours
        session.execute(_MARK_ENCODED, {"ids": list(hashes), "hashes": list(hashes.values())})
        return
    session.connection().execute(
        _MARK_ENCODED_ONE, [{"item_id": id_, "hash": content_hash} for id_, content_hash in hashes.items()]
    )


def mark_failed(session: Session, reasons: Mapping[int, str]) -> None:
    """Record why items could not be encoded: item id to reason."""
    session.execute(
        sa.update(Item), [{"id": id_, "state": "failed", "failure": reason} for id_, reason in reasons.items()]
    )


def new_items(
    session: Session, project_id: int, first_id: int = 0, limit: int = 10_000, last_id: int = 2**31 - 1
) -> Sequence[tuple[int, str]]:
    """Items that nobody tried to encode yet, as (id, uri), by id from `first_id` to `last_id`."""
    rows = session.execute(
        sa.select(Item.id, Item.uri)
        .where(Item.project_id == project_id, Item.state == "new", Item.id.between(first_id, last_id))
        .order_by(Item.id)
        .limit(limit)
    )
    return [(id_, uri) for id_, uri in rows]


def encoded_items(session: Session, project_id: int) -> list[tuple[int, str, str]]:
    """Every encoded item as (id, uri, content hash)."""
    rows = session.execute(
        sa.select(Item.id, Item.uri, Item.content_hash)
        .where(Item.project_id == project_id, Item.state == "encoded", Item.content_hash.is_not(None))
        .order_by(Item.id)
    )
    return [(id_, uri, hash_ or "") for id_, uri, hash_ in rows]


def encoded_hashes(session: Session, project_id: int) -> dict[int, str]:
    """The content hash of every encoded item, by id. Not through the ORM: there may be millions."""
    query = sa.select(Item.id, Item.content_hash).where(
        Item.project_id == project_id, Item.state == "encoded", Item.content_hash.is_not(None)
    )
    return {row.id: row.content_hash for row in session.connection().execute(query)}


def listed_items(
    session: Session, project_id: int, needs_no_task: bool = False
) -> list[tuple[str, str, dict[str, Any]]]:
    """Every item that the pool's listing names, as (key, uri, data); or those of them that have no task yet."""
    query = sa.select(Item.key, Item.uri, Item.data).where(
        Item.project_id == project_id, Item.validator.is_not(None), Item.state != "gone"
    )
    if needs_no_task:
        query = query.where(Item.task_id.is_(None))
    return [(key, uri, data) for key, uri, data in session.execute(query.order_by(Item.id))]


def forget_embeddings(session: Session, item_ids: Iterable[int]) -> None:
    """Let items be encoded again: their rows are not in the store of the project's encoder."""
    for chunk in chunks(item_ids):
        session.execute(sa.update(Item).where(Item.id.in_(chunk)).values(state="new"))


def candidates(session: Session, project_id: int, needs_task: bool) -> Candidates:
    """The pool: encoded, not in the holdout, and with no annotation (a skip is one too)."""
    touched = sa.select(Annotation.item_id).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    query = (
        sa.select(Item.id, Item.content_hash)
        .where(
            Item.project_id == project_id,
            Item.state == "encoded",
            Item.is_holdout.is_(False),
            Item.id.not_in(touched),
        )
        .order_by(Item.id)
    )
    if needs_task:
        query = query.where(Item.task_id.is_not(None))
    rows = session.execute(query).all()
    return Candidates(np.array([row[0] for row in rows], dtype=np.int64), tuple(row[1] or "" for row in rows))


def labelled(session: Session, project_id: int, asked: Question) -> list[Labelled]:
    """Encoded items with a label, by item id: what people's answers to the question `asked` come to."""
    rows = session.execute(
        sa.select(Annotation, Item.content_hash, Item.is_holdout)
        .join(Item, Item.id == Annotation.item_id)
        .where(
            Annotation.project_id == project_id,
            Annotation.deleted_at.is_(None),
            Annotation.label.is_not(None),
            Item.state == "encoded",
        )
        .order_by(Annotation.item_id, Annotation.updated_at, Annotation.external_id)
    )
    votes: dict[int, list[tuple[Annotation, str, bool]]] = defaultdict(list)
    for annotation, content_hash, is_holdout in rows:
        votes[annotation.item_id].append((annotation, content_hash or "", is_holdout))
    return [_agreed(item_id, given, asked) for item_id, given in sorted(votes.items())]


def _agreed(item_id: int, votes: list[tuple[Annotation, str, bool]], asked: Question) -> Labelled:
    label, rows = asked.agreed([annotation.label or "" for annotation, *_ in votes])
    agreeing = [votes[at][0] for at in rows]
    return Labelled(
        item_id=item_id,
        content_hash=votes[0][1],
        label=label,
        is_holdout=votes[0][2],
        annotations={annotation.external_id: annotation.annotator or "?" for annotation in agreeing},
    )


def forget_tasks(session: Session, project_id: int, there: Set[int]) -> None:
    """Items whose task is not among `there` have none any more: they wait, and come back with a new task."""
    have = session.execute(
        sa.select(Item.id, Item.task_id).where(Item.project_id == project_id, Item.task_id.is_not(None))
    )
    gone = [item_id for item_id, task_id in have if task_id not in there]
    for chunk in chunks(gone):
        session.execute(sa.update(Item).where(Item.id.in_(chunk)).values(task_id=None))


def mark_deleted(session: Session, project_id: int, external_ids: Iterable[int]) -> None:
    """Record that annotations are gone from the label source; their rows stay as history."""
    for chunk in chunks(external_ids):
        session.execute(
            sa.update(Annotation)
            .where(
                Annotation.project_id == project_id,
                Annotation.external_id.in_(chunk),
                Annotation.deleted_at.is_(None),
            )
            .values(deleted_at=now())
        )

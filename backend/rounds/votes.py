"""What users of a model say of its predictions: votes and true labels, and which items they put into the next batch.

Feedback is no annotation: whoever is served a prediction is no annotator, and nothing is trained on it. An item with
too many votes against it is asked for in the next batch, where a person decides. Torch-free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Item, ModelVersion, Project, Vote, lock_project, now
from backend.learning import registry
from backend.pool.catalog import chunks
from backend.rounds.labelling import find_items

Says = Callable[[ModelVersion, Sequence[str]], Sequence[str | None]]
"""What a version says of contents, by their hashes: a label each, None where nobody knows."""


@dataclass(frozen=True)
class Cast:
    """A vote on what `version` said of an item, or the item's true label; the item is named as in `Given`.

    With a `voter`, the later of two on one item and version counts.
    """

    version: str
    is_against: bool | None = None
    label: str | None = None
    uri: str | None = None
    key: str | None = None
    item_id: int | None = None
    voter: str | None = None


@dataclass(frozen=True)
class Counted:
    """How many were new and changed; and how many of all these speak against what was said."""

    new: int
    changed: int
    against: int


def cast(session: Session, project: Project, votes: Sequence[Cast], says: Says) -> Counted:
    """Keep them, all or none, in one transaction. A true label is a vote against a version that says another.

    Raises UnknownItem, UnknownVersion.
    """
    lock_project(session, project.id)
    items = find_items(session, project, [(one.uri, one.key, one.item_id) for one in votes], "feedback")
    versions = {name: registry.find(session, project.id, name) for name in {one.version for one in votes}}
    is_against = _judged(session, votes, items, versions, says)
    before = _before(session, project.id, items)
    new = 0
    for one, item_id, against in zip(votes, items, is_against, strict=True):
        version_id = versions[one.version].id
        row = before.get((item_id, version_id, one.voter)) if one.voter is not None else None
        if row is None:
            row = Vote(project_id=project.id, item_id=item_id, model_version_id=version_id, voter=one.voter)
            session.add(row)
            new += 1
        row.is_against, row.label, row.created_at = against, one.label, now()
        if one.voter is not None:
            before[(item_id, version_id, one.voter)] = row
    session.flush()
    return Counted(new, len(votes) - new, sum(1 for against in is_against if against))


def contested(session: Session, project_id: int, fewest: int, most: int, needs_task: bool) -> dict[int, str]:
    """Items of the pool with at least `fewest` votes against them and more than for them, and why, worst first.

    At most `most`. One that was annotated since, even skipped, is settled.
    """
    against = sa.func.sum(sa.case((Vote.is_against.is_(True), 1), else_=0))
    favour = sa.func.sum(sa.case((Vote.is_against.is_(False), 1), else_=0))
    touched = sa.select(Annotation.item_id).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    query = (
        sa.select(Vote.item_id, against, favour)
        .join(Item, Item.id == Vote.item_id)
        .where(Vote.project_id == project_id, Item.state == "encoded", Item.is_holdout.is_(False))
        .where(Item.id.not_in(touched))
        .group_by(Vote.item_id)
        .having(against >= fewest, against > favour)
        .order_by((against - favour).desc(), Vote.item_id)
        .limit(most)
    )
    if needs_task:
        query = query.where(Item.task_id.is_not(None))
    return {
        item_id: f"{no} of {no + yes} users say that its prediction is wrong"
        for item_id, no, yes in session.execute(query)
    }


def _judged(
    session: Session, votes: Sequence[Cast], items: Sequence[int], versions: dict[str, ModelVersion], says: Says
) -> list[bool | None]:
    """Whether each speaks against; true labels are compared with what the version says of the item's content."""
    judged = [one.is_against for one in votes]
    hashes: dict[int, str | None] = {}
    for chunk in chunks(set(items)):
        hashes.update((id_, hash_) for id_, hash_ in session.execute(_hashes(chunk)))
    for name, version in versions.items():
        places = [n for n, one in enumerate(votes) if one.version == name and one.label is not None]
        known = [n for n in places if hashes.get(items[n])]
        said = says(version, [hashes[items[n]] or "" for n in known]) if known else []
        for place, label in zip(known, said, strict=True):
            judged[place] = None if label is None else label != votes[place].label
    return judged


def _hashes(ids: Sequence[int]) -> sa.Select[int, str | None]:
    return sa.select(Item.id, Item.content_hash).where(Item.id.in_(ids))


def _before(session: Session, project_id: int, items: Sequence[int]) -> dict[tuple[int, int, str], Vote]:
    found: dict[tuple[int, int, str], Vote] = {}
    for chunk in chunks(set(items)):
        mine = sa.select(Vote).where(Vote.project_id == project_id, Vote.item_id.in_(chunk), Vote.voter.is_not(None))
        for row in session.scalars(mine):
            found[(row.item_id, row.model_version_id, row.voter or "")] = row
    return found

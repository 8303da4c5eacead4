"""What people decide by hand: which items come first, which never, in which order, and what shall be tried again.

A round reads it when it chooses (`wishes`), so it is in the next batch that is published, and in every one after
that until the item is labelled. Every deed is a line of the project's books. Torch-free: the web process calls this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Deed, Item, Mark, Pick, Project, Round, lock_project
from backend.errors import NotMovable, TooManyFirst, UnknownItems
from backend.pool.catalog import chunks

Kind = Literal["first", "never"]
MOST_FIRST = 1_000  # marked items a project: they come on top of a batch
_CHOOSING = ("choose", "publish")


@dataclass(frozen=True)
class Wishes:
    """Items to put first, in this order, that may be labelled still; and those never to ask for."""

    first: tuple[int, ...]
    never: frozenset[int]


def wishes(session: Session, project_id: int, needs_task: bool) -> Wishes:
    """What a round has to respect: marked items that are encoded and that nobody annotated."""
    touched = sa.select(Annotation.item_id).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    may_be_first = sa.and_(Item.state == "encoded", Item.id.not_in(touched))
    if needs_task:
        may_be_first = sa.and_(may_be_first, Item.task_id.is_not(None))
    rows = session.execute(
        sa.select(Mark.item_id, Mark.kind, may_be_first)
        .join(Item, Item.id == Mark.item_id)
        .where(Mark.project_id == project_id)
        .order_by(Mark.place, Mark.item_id)
    ).all()
    first = tuple(item_id for item_id, kind, is_possible in rows if kind == "first" and is_possible)
    return Wishes(first, frozenset(item_id for item_id, kind, _ in rows if kind == "never"))


def mark(session: Session, project: Project, item_ids: Sequence[int], kind: Kind, actor: str) -> int:
    """Let these items come first (after those that do already), or never. Returns how many. Raises UnknownItems."""
    ids = _of_project(session, project, item_ids)
    marked = sa.select(sa.func.count(), sa.func.max(Mark.place)).where(
        Mark.project_id == project.id, Mark.kind == kind, Mark.item_id.not_in(ids)
    )
    others, last = session.execute(marked).one()
    if kind == "first" and others + len(ids) > MOST_FIRST:
        raise TooManyFirst(project=project.name, most=MOST_FIRST)
    session.execute(sa.delete(Mark).where(Mark.item_id.in_(ids)))
    for place, item_id in enumerate(ids, start=(last or 0) + 1):
        session.add(Mark(item_id=item_id, project_id=project.id, kind=kind, place=place))
    note(session, project.id, actor, kind, _named(ids))
    return len(ids)


def unmark(session: Session, project: Project, item_ids: Sequence[int], actor: str) -> int:
    """Leave these items to the strategy again. Returns how many were marked."""
    ids = _of_project(session, project, item_ids)
    marked = sorted(session.scalars(sa.select(Mark.item_id).where(Mark.item_id.in_(ids))))
    if marked:
        session.execute(sa.delete(Mark).where(Mark.item_id.in_(marked)))
        note(session, project.id, actor, "unmark", _named(marked))
    return len(marked)


def move(session: Session, project: Project, item_id: int, rank: int, actor: str) -> None:
    """Give an item of the published batch another rank, from 0; the others close up.

    The next round keeps this order for what nobody labelled. Raises NotMovable while a round chooses or publishes:
    what it read already would win without a word.
    """
    running = session.scalars(
        sa.select(Round).where(Round.project_id == project.id, Round.state == "running").with_for_update()
    ).first()
    if running is not None and running.step in _CHOOSING:
        raise NotMovable(item=item_id, problem=f"round {running.number} is making the next batch")
    batch = session.scalar(
        sa.select(Batch)
        .where(Batch.project_id == project.id, Batch.state == "published")
        .order_by(Batch.number.desc())
        .limit(1)
    )
    picks = [] if batch is None else list(_picks(session, batch.id))
    order = [pick.item_id for pick in picks]
    if batch is None or item_id not in order:
        raise NotMovable(item=item_id, problem="it is not in the published batch")
    before = order.index(item_id)
    order.insert(min(max(0, rank), len(order) - 1), order.pop(before))
    ranks = {moved: place for place, moved in enumerate(order)}
    changed = [pick for pick in picks if pick.rank != ranks[pick.item_id]]
    for offset in (-len(order) - 1, 0):  # the rank is a key: out of the way first, then to its place
        for pick in changed:
            is_pick = (Pick.batch_id == batch.id, Pick.item_id == pick.item_id)
            session.execute(sa.update(Pick).where(*is_pick).values(rank=ranks[pick.item_id] + offset))
    if changed:
        note(session, project.id, actor, "move", f"item {item_id} from {before + 1} to {ranks[item_id] + 1}")


def retry(session: Session, project: Project, item_ids: Sequence[int], reason: str, actor: str) -> int:
    """Let failed items be tried again by the next round. Returns how many."""
    count = 0
    for chunk in chunks(item_ids):
        failed = (Item.project_id == project.id, Item.state == "failed", Item.id.in_(chunk))
        count += len(session.scalars(sa.select(Item.id).where(*failed)).all())
        session.execute(sa.update(Item).where(*failed).values(state="new", failure=None))
    if count:
        note(session, project.id, actor, "retry", f"{count} items: {reason}"[:500])
    return count


def note(session: Session, project_id: int, actor: str, action: str, detail: str) -> None:
    """A line of the project's books."""
    session.add(Deed(project_id=project_id, actor=actor[:128], action=action, detail=detail))


def _picks(session: Session, batch_id: int) -> Sequence[Pick]:
    return session.scalars(sa.select(Pick).where(Pick.batch_id == batch_id).order_by(Pick.rank)).all()


def _of_project(session: Session, project: Project, item_ids: Sequence[int]) -> list[int]:
    """The ids without repetition, in the given order, all of this project; one deed at a time for a project."""
    lock_project(session, project.id)
    ids = list(dict.fromkeys(item_ids))
    if len(ids) > MOST_FIRST:
        raise TooManyFirst(project=project.name, most=MOST_FIRST)
    found = set(session.scalars(sa.select(Item.id).where(Item.project_id == project.id, Item.id.in_(ids))))
    if strangers := [one for one in ids if one not in found]:
        raise UnknownItems(project=project.name, ids=", ".join(map(str, strangers[:5])))
    return ids


def _named(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:20]))
    return f"{len(ids)} items: {shown}{', …' if len(ids) > 20 else ''}" if len(ids) > 1 else f"item {shown}"

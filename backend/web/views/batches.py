"""Batches in rank order: what people are asked to label, what the model says of it, and why it is there."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Item, Pick, Project
from backend.web.views.page import Page, cut
from backend.web.views.task import holds_texts, item_name, listed_uri, studio_link


@dataclass(frozen=True)
class BatchLine:
    """A batch in a list. `version` is what Label Studio knows it by, such as v7+b12."""

    number: int
    version: str
    state: str
    strategy: str
    policy: str
    size: int
    labelled: int
    created_at: dt.datetime
    published_at: dt.datetime | None


@dataclass(frozen=True)
class Nearest:
    """The labelled item that a pick is most like, to compare it with; `label` is what people say of it now."""

    item_id: int
    name: str
    label: str | None


@dataclass(frozen=True)
class PickView:
    """One item of a batch. `probabilities` are those of the likeliest classes, falling; `name` has no secrets."""

    rank: int
    item_id: int
    uri: str
    name: str
    prediction: str | None
    probabilities: dict[str, float]
    reason: str
    utility: float | None
    propensity: float | None
    is_holdout_slice: bool
    is_kept: bool
    label: str | None
    nearest: Nearest | None
    task_id: int | None
    task_url: str | None


@dataclass(frozen=True)
class BatchView:
    """A batch with a page of its picks."""

    batch: BatchLine
    picks: Page[PickView]


def batches(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[BatchLine]:
    """Batches, newest first, from number `newest` down."""
    query = sa.select(Batch).where(Batch.project_id == project.id)
    if newest is not None:
        query = query.where(Batch.number <= newest)
    rows = session.scalars(query.order_by(Batch.number.desc()).limit(limit + 1)).all()
    return cut(_lines(session, rows), limit, lambda one: one.number)


def published_batch(session: Session, project: Project) -> int | None:
    """The number of the batch in people's hands, or of the newest one."""
    mine = sa.select(sa.func.max(Batch.number)).where(Batch.project_id == project.id)
    published: int | None = session.scalar(mine.where(Batch.state == "published"))
    return session.scalar(mine) if published is None else published


def find_batch(
    session: Session, project: Project, number: int, limit: int, first: int = 0, *, is_whole: bool = False
) -> BatchView | None:
    """The batch of that number with its picks from rank `first` on; texts are cut unless `is_whole`."""
    batch = session.scalar(sa.select(Batch).where(Batch.project_id == project.id, Batch.number == number))
    if batch is None:
        return None
    rows = session.execute(
        sa.select(Pick, Item.uri, Item.task_id)
        .join(Item, Item.id == Pick.item_id)
        .where(Pick.batch_id == batch.id, Pick.rank >= first)
        .order_by(Pick.rank)
        .limit(limit + 1)
    ).all()
    labels = labels_of(session, [pick.item_id for pick, _, _ in rows])
    like = _nearest(session, project, [pick.nearest_id for pick, _, _ in rows if pick.nearest_id is not None])
    is_inline = holds_texts(project)
    picks = [
        _pick(
            project,
            is_inline,
            pick,
            uri if is_whole else listed_uri(uri, is_inline),
            task_id,
            labels.get(pick.item_id),
            like.get(pick.nearest_id or 0),
        )
        for pick, uri, task_id in rows
    ]
    return BatchView(_lines(session, [batch])[0], cut(picks, limit, lambda one: one.rank))


def _nearest(session: Session, project: Project, item_ids: list[int]) -> dict[int, Nearest]:
    labels, is_inline = labels_of(session, item_ids), holds_texts(project)
    rows = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(item_ids)))
    return {id_: Nearest(id_, item_name(uri, is_inline), labels.get(id_)) for id_, uri in rows}


def labels_of(session: Session, item_ids: list[int]) -> dict[int, str]:
    """The newest label of each of these items that has one."""
    rows = session.execute(
        sa.select(Annotation.item_id, Annotation.label)
        .where(Annotation.item_id.in_(item_ids), Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
        .order_by(Annotation.updated_at)
    )
    return {item_id: str(label) for item_id, label in rows}


def _lines(session: Session, rows: Sequence[Batch]) -> list[BatchLine]:
    is_labelled = sa.exists().where(
        Annotation.item_id == Pick.item_id,
        Annotation.deleted_at.is_(None),
        Annotation.label.is_not(None),
        Annotation.created_at >= Batch.created_at,  # of a second opinion the first label is older
    )
    sizes = {
        batch_id: (size, labelled)
        for batch_id, size, labelled in session.execute(
            sa.select(Pick.batch_id, sa.func.count(), sa.func.sum(sa.case((is_labelled, 1), else_=0)))
            .join(Batch, Batch.id == Pick.batch_id)
            .where(Pick.batch_id.in_([row.id for row in rows]))
            .group_by(Pick.batch_id)
        )
    }
    return [
        BatchLine(
            number=row.number,
            version=row.version,
            state=row.state,
            strategy=row.strategy,
            policy=row.policy,
            size=sizes.get(row.id, (0, 0))[0],
            labelled=sizes.get(row.id, (0, 0))[1],
            created_at=row.created_at,
            published_at=row.published_at,
        )
        for row in rows
    ]


def _pick(
    project: Project,
    is_inline: bool,
    pick: Pick,
    uri: str,
    task_id: int | None,
    label: str | None,
    nearest: Nearest | None,
) -> PickView:
    said = pick.prediction or {}
    return PickView(
        rank=pick.rank,
        item_id=pick.item_id,
        uri=uri,
        name=item_name(uri, is_inline),
        prediction=said.get("label"),
        probabilities=_falling(said.get("probabilities") or {}),
        reason=pick.reason,
        utility=pick.utility,
        propensity=pick.propensity,
        is_holdout_slice=pick.is_random_slice,
        is_kept=pick.is_kept,
        label=label,
        nearest=nearest,
        task_id=task_id,
        task_url=None if task_id is None else studio_link(project, task_id),
    )


def _falling(probabilities: Mapping[str, Any]) -> dict[str, float]:
    return dict(sorted(probabilities.items(), key=lambda one: -one[1]))

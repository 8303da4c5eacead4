"""Two versions side by side: their measures, what a closer look found of each, and the items they differ on."""

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Item, ModelAnalysis, ModelVersion, Project
from backend.errors import HeadUnreadable
from backend.learning import look
from backend.rounds.comparison import Answers, AnyContrast, answers, contrast_of
from backend.web.views.models import ModelView, view
from backend.web.views.task import item_name, studio_link, task_of

MOST_ITEMS = 24


@dataclass(frozen=True)
class Said:
    """A version's answer for an item, and how sure it is, in [0, 1]."""

    label: str
    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Differing:
    """A holdout item on which the versions differ."""

    item_id: int
    name: str
    label: str
    one: Said
    other: Said
    task_url: str | None


@dataclass(frozen=True)
class SideBySide:
    """`one` against `other`, on `labels` holdout items; `differ` of them get different answers, the surest first.

    `contrast` and the items are missing below 10 labels, and where a head is gone; an analysis where no round made it.
    """

    one: ModelView
    other: ModelView
    analyses: tuple[look.Look | None, look.Look | None]
    contrast: AnyContrast | None
    labels: int
    differ: int
    items: list[Differing]

    @property
    def is_number(self) -> bool:
        """Whether the versions say numbers."""
        return "mae" in self.one.measures or "mae" in self.other.measures


def side_by_side(session: Session, project: Project, one: ModelVersion, other: ModelVersion) -> SideBySide:
    """Both as they answer on the holdout as it is labelled now."""
    analyses = (_analysis(session, one), _analysis(session, other))
    try:
        said: Answers | None = answers(session, one, other)
    except HeadUnreadable:
        said = None
    if said is None or not said.holdout:
        return SideBySide(view(one), view(other), analyses, None, 0, 0, [])
    differing = np.flatnonzero([one != other for one, other in zip(*said.labels, strict=True)])
    sure = np.maximum(*map(np.array, said.sure))
    shown = differing[np.argsort(-sure[differing], kind="stable")][:MOST_ITEMS]
    rows = [said.holdout[int(at)] for at in shown]
    items = {
        item.id: item for item in session.scalars(sa.select(Item).where(Item.id.in_([row.item_id for row in rows])))
    }
    task = task_of(project)
    is_inline = task is not None and task.is_inline

    def answer(which: int, at: int, label: str) -> Said:
        return Said(said.labels[which][at], said.sure[which][at], said.labels[which][at] == label)

    found = [
        Differing(
            row.item_id,
            item_name(items[row.item_id].uri, is_inline),
            row.label,
            answer(0, int(at), row.label),
            answer(1, int(at), row.label),
            None if (task_id := items[row.item_id].task_id) is None else studio_link(project, task_id),
        )
        for at, row in zip(shown, rows, strict=True)
    ]
    return SideBySide(view(one), view(other), analyses, contrast_of(said), len(said.holdout), len(differing), found)


def _analysis(session: Session, version: ModelVersion) -> look.Look | None:
    kept = session.get(ModelAnalysis, version.id)
    return None if kept is None else look.read(kept.found)

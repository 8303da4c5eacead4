"""Projects in numbers: how the items divide, what runs, and what has to happen for the next round."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Event, Item, Pick, Project, project_named
from backend.rounds.queue import LABEL_ACTIONS, rest_of_batch
from backend.web.views.encoders import EncoderView, encoder_view
from backend.web.views.rounds import RoundView, latest_round
from backend.web.views.task import studio_link, task_of

MOST_PROJECTS = 500


@dataclass(frozen=True)
class Counts:
    """A project's items, divided without overlap; `gone` ones are in none of the other parts.

    `labelled` are those that may be trained on, `holdout` the labelled ones that measure, `in_batch` those in people's
    hands, `pool` the encoded rest, `new` those without an embedding yet, `failed` those that cannot be read.
    """

    labelled: int
    holdout: int
    in_batch: int
    pool: int
    new: int
    failed: int
    gone: int

    @property
    def total(self) -> int:
        return self.labelled + self.holdout + self.in_batch + self.pool + self.new + self.failed


@dataclass(frozen=True)
class Trigger:
    """What starts the next round: so many new labels and quiet, a long wait, or a batch that runs out."""

    new_labels: int
    labels_wanted: int
    quiet_s: float
    max_wait_s: float
    rest_of_batch: float
    rest_share: float


@dataclass(frozen=True)
class ProjectState:
    """A project at this moment. `studio_url` is its page in Label Studio, where one is known."""

    name: str
    kind: str
    classes: int
    strategy: str
    batch_size: int
    studio_url: str | None
    counts: Counts
    trigger: Trigger
    round: RoundView | None
    encoder: EncoderView | None = None


@dataclass(frozen=True)
class ProjectLine:
    """A project in a list."""

    name: str
    labels: int
    round: RoundView | None


def projects(session: Session) -> list[ProjectLine]:
    """All projects by name, at most 500."""
    found = session.scalars(sa.select(Project).order_by(Project.name).limit(MOST_PROJECTS)).all()
    labels = dict(
        session.execute(
            sa.select(Annotation.project_id, sa.func.count(Annotation.item_id.distinct()))
            .where(Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
            .group_by(Annotation.project_id)
        ).all()
    )
    return [ProjectLine(one.name, labels.get(one.id, 0), latest_round(session, one.id)) for one in found]


def project_state(session: Session, name: str) -> ProjectState:
    """One project. Raises UnknownProject."""
    project = project_named(session, name)
    config, task = project.settings, task_of(project)
    return ProjectState(
        name=project.name,
        kind=task.kind if task else "image",
        classes=len(task.choices) if task else 0,
        strategy=config.strategy.name,
        batch_size=config.batch.size,
        studio_url=studio_link(project),
        counts=counts(session, project.id),
        trigger=Trigger(
            new_labels=_new_labels(session, project.id),
            labels_wanted=config.trigger.new_labels,
            quiet_s=config.trigger.quiet_s,
            max_wait_s=config.trigger.max_wait_s,
            rest_of_batch=rest_of_batch(session, project.id),
            rest_share=config.trigger.rest_share,
        ),
        round=latest_round(session, project.id),
        encoder=encoder_view(session, project),
    )


def counts(session: Session, project_id: int) -> Counts:
    """Cost: one pass over the index of states, and one over the annotated items and the batch."""
    states = dict(
        session.execute(
            sa.select(Item.state, sa.func.count()).where(Item.project_id == project_id).group_by(Item.state)
        ).all()
    )
    annotated = (
        sa.select(Annotation.item_id)
        .where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
        .distinct()
        .subquery()
    )
    rows = session.execute(
        sa.select(Item.state, Item.is_holdout, sa.func.count())
        .select_from(annotated.join(Item, Item.id == annotated.c.item_id))
        .where(Item.state != "gone")
        .group_by(Item.state, Item.is_holdout)
    ).all()
    labelled = {state: sum(count for one, _, count in rows if one == state) for state, _, _ in rows}
    in_batch = in_hands(session, project_id)
    return Counts(
        labelled=sum(count for _, is_holdout, count in rows if not is_holdout),
        holdout=sum(count for _, is_holdout, count in rows if is_holdout),
        in_batch=in_batch,
        pool=max(0, states.get("encoded", 0) - labelled.get("encoded", 0) - in_batch),
        new=states.get("new", 0) - labelled.get("new", 0),
        failed=states.get("failed", 0) - labelled.get("failed", 0),
        gone=states.get("gone", 0),
    )


def in_hands(session: Session, project_id: int) -> int:
    """How many items of the published batch nobody has labelled."""
    newest = (
        sa.select(sa.func.max(Batch.id))
        .where(Batch.project_id == project_id, Batch.state == "published")
        .scalar_subquery()
    )
    labelled = sa.exists().where(
        Annotation.item_id == Pick.item_id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None)
    )
    query = (
        sa.select(sa.func.count())
        .select_from(Pick)
        .join(Item, Item.id == Pick.item_id)
        .where(Pick.batch_id == newest, Item.state == "encoded", ~labelled)
    )
    return session.scalar(query) or 0


def _new_labels(session: Session, project_id: int) -> int:
    query = sa.select(sa.func.count()).where(
        Event.project_id == project_id, Event.round_number.is_(None), Event.action.in_(LABEL_ACTIONS)
    )
    return session.scalar(query) or 0

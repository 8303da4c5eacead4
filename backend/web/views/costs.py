"""What a project cost so far: people's time, and the machines'."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Project, Round

MOST_PEOPLE = 100


@dataclass(frozen=True)
class PersonView:
    """A person's labels and the time they took, as Label Studio measured it; None where it did not."""

    name: str
    labels: int
    hours: float | None
    seconds_a_label: float | None


@dataclass(frozen=True)
class Costs:
    """`hours` is the people's time, `round_hours` that of rounds, from the begin to the finish of each."""

    people: list[PersonView]
    labels: int
    hours: float
    rounds: int
    round_hours: float


def costs(session: Session, project: Project) -> Costs:
    """Labels that stand, by person, at most 100 of them, the busiest first; and all rounds that ended."""
    seconds = sa.func.sum(Annotation.lead_time_s)
    timed = sa.func.count(Annotation.lead_time_s)
    mine = (Annotation.project_id == project.id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
    rows = session.execute(
        sa.select(Annotation.annotator, sa.func.count(), seconds, timed)
        .where(*mine)
        .group_by(Annotation.annotator)
        .order_by(sa.func.count().desc())
    ).all()
    people = [_person(*row) for row in rows[:MOST_PEOPLE]]
    spans = session.execute(
        sa.select(Round.started_at, Round.finished_at).where(
            Round.project_id == project.id, Round.started_at.is_not(None), Round.finished_at.is_not(None)
        )
    ).all()
    worked_s = sum((finished - started).total_seconds() for started, finished in spans if started and finished)
    labels = sum(count for _, count, _, _ in rows)
    return Costs(people, labels, sum(spent or 0.0 for _, _, spent, _ in rows) / 3600, len(spans), worked_s / 3600)


def _person(name: str | None, labels: int, spent_s: float | None, timed: int) -> PersonView:
    if not timed or spent_s is None:
        return PersonView(name or "unknown", labels, None, None)
    return PersonView(name or "unknown", labels, spent_s / 3600, spent_s / timed)

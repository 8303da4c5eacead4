"""What the learning curve says of stopping, kept with each version: at fifty versions the fit takes half a second."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import ModelAdvice, ModelVersion, Project, transaction
from strategies.stopping import plateau

MOST_POINTS = 500


@dataclass(frozen=True)
class Advice:
    """One stopping criterion: whether it would stop (None: it cannot tell yet, or it is none), and why."""

    criterion: str
    says_stop: bool | None
    says: str


def keep_advice(project: Project, version: ModelVersion) -> None:
    """Compute what the curve says now that this version is on it, and keep it. Run again, it writes the same."""
    with transaction() as session:
        measured = _measured(session, project)
    signals = [asdict(one) for one in advise(measured, project.settings.batch.size)]
    with transaction() as session:
        session.merge(ModelAdvice(version_id=version.id, signals=signals))


def advice(session: Session, project: Project) -> list[Advice]:
    """What was kept with the newest version; computed where nothing was."""
    newest = sa.select(sa.func.max(ModelVersion.id)).where(ModelVersion.project_id == project.id).scalar_subquery()
    kept = session.get(ModelAdvice, session.scalar(sa.select(newest)) or 0)
    if kept is not None:
        return [Advice(**one) for one in kept.signals]
    return advise(_measured(session, project), project.settings.batch.size)


def advise(measured: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], batch: int) -> list[Advice]:
    """From metrics and lineages, the oldest version first, what `batch` more labels promise.

    From holdout points of rising labels only: an accuracy on labels that a strategy chose forecasts nothing.
    """
    rising: dict[int, Mapping[str, Any]] = {}
    for metrics, lineage in measured:
        labels = int(lineage.get("labels", 0))
        if metrics.get("accuracy") is not None and metrics.get("source", "holdout") == "holdout" and labels > 0:
            rising[labels] = metrics
    labels_ = tuple(sorted(rising))
    accuracies = tuple(float(rising[one]["accuracy"]) for one in labels_)
    measured_on = int(rising[labels_[-1]].get("labels", 0)) if labels_ else 0
    return [_plateau(labels_, accuracies, measured_on, batch)]


@lru_cache(maxsize=64)
def _plateau(labels: tuple[int, ...], accuracies: tuple[float, ...], measured_on: int, batch: int) -> Advice:
    """Remembered for projects from before advice was kept."""
    signal = plateau(labels, accuracies, measured_on, batch)
    return Advice(signal.criterion, None if signal.says_stop is None else bool(signal.says_stop), signal.says)


def _measured(session: Session, project: Project) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Metrics and lineages of the newest 500 versions, the oldest first."""
    rows = session.execute(
        sa.select(ModelVersion.metrics, ModelVersion.lineage)
        .where(ModelVersion.project_id == project.id)
        .order_by(ModelVersion.number.desc())
        .limit(MOST_POINTS)
    )
    return list(rows.tuples())[::-1]

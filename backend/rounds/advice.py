"""What the learning curve says of stopping, kept with each version: at fifty versions the fit takes half a second."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import ModelAdvice, ModelVersion, Project, reading, transaction
from strategies.forecast import labels_for
from strategies.stopping import plateau

MOST_POINTS = 500
FEWEST_STEPS = 4
MOST_TIMES = 20  # the curve is followed to so many times the labels there are

Measured = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class Advice:
    """One stopping criterion: whether it would stop (None: it cannot tell yet, or it is none), and why."""

    criterion: str
    says_stop: bool | None
    says: str


def keep_advice(project: Project, version: ModelVersion) -> None:
    """Compute what the curve says now that this version is on it, and keep it. Run again, it writes the same."""
    with reading() as session:
        measured = _measured(session, project)
    signals = [asdict(one) for one in advise(measured, project.settings.batch.size)]
    with transaction() as session:
        session.merge(ModelAdvice(version_id=version.id, signals=signals))


def advice(session: Session, project: Project) -> list[Advice]:
    """What was kept with the newest version, computed where nothing was; and how far the target is, if there is one."""
    newest = sa.select(sa.func.max(ModelVersion.id)).where(ModelVersion.project_id == project.id).scalar_subquery()
    kept = session.get(ModelAdvice, session.scalar(sa.select(newest)) or 0)
    target = project.settings.stopping.target
    if kept is not None and target is None:
        return [Advice(**one) for one in kept.signals]
    measured = _measured(session, project)
    found = advise(measured, project.settings.batch.size) if kept is None else [Advice(**one) for one in kept.signals]
    return found if target is None else [*found, to_target(measured, target)]


def advise(measured: Measured, batch: int) -> list[Advice]:
    """From metrics and lineages, the oldest version first, what `batch` more labels promise."""
    labels, accuracies, measured_on = _curve(measured)
    return [_plateau(labels, accuracies, measured_on, batch)]


def to_target(measured: Measured, target: float) -> Advice:
    """How many labels more the curve asks for."""
    labels, accuracies, _ = _curve(measured)
    if len(labels) < FEWEST_STEPS:
        return Advice("target", None, f"a curve needs {FEWEST_STEPS} measurements; there are {len(labels)}")
    now = accuracies[-1]
    if now >= target:
        return Advice("target", True, f"{now:.1%} is measured, {target:.1%} was wanted")
    needed = labels_for(labels, np.array([accuracies]), target, MOST_TIMES * labels[-1])
    if needed is None:
        most = f"{MOST_TIMES * labels[-1]:,}"
        return Advice(
            "target", False, f"the curve does not reach {target:.1%} with {most} labels; {now:.1%} is measured"
        )
    more = max(1, needed - labels[-1])
    return Advice("target", False, f"about {more:,} more labels to {target:.1%}, by the curve; {now:.1%} is measured")


def _curve(measured: Measured) -> tuple[tuple[int, ...], tuple[float, ...], int]:
    """Rising labels with their accuracies, and how many labels measured the last one.

    From the holdout only: an accuracy on labels that a strategy chose forecasts nothing.
    """
    rising: dict[int, Mapping[str, Any]] = {}
    for metrics, lineage in measured:
        labels = int(lineage.get("labels", 0))
        if metrics.get("accuracy") is not None and metrics.get("source", "holdout") == "holdout" and labels > 0:
            rising[labels] = metrics
    steps = tuple(sorted(rising))
    accuracies = tuple(float(rising[one]["accuracy"]) for one in steps)
    return steps, accuracies, int(rising[steps[-1]].get("labels", 0)) if steps else 0


@lru_cache(maxsize=64)
def _plateau(labels: tuple[int, ...], accuracies: tuple[float, ...], measured_on: int, batch: int) -> Advice:
    """Remembered for projects from before advice was kept."""
    signal = plateau(labels, accuracies, measured_on, batch)
    return Advice(signal.criterion, None if signal.says_stop is None else bool(signal.says_stop), signal.says)


def _measured(session: Session, project: Project) -> Measured:
    """Metrics and lineages of the newest 500 versions, the oldest first."""
    rows = session.execute(
        sa.select(ModelVersion.metrics, ModelVersion.lineage)
        .where(ModelVersion.project_id == project.id)
        .order_by(ModelVersion.number.desc())
        .limit(MOST_POINTS)
    )
    return rows.all()[::-1]

"""Model versions, the learning curve that they draw, and what it says of stopping."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import ModelVersion, Project
from backend.rounds.advice import MOST_POINTS, Advice, advice
from backend.rounds.arms import ArmCurve, comparisons
from backend.web.views.page import Page, cut


@dataclass(frozen=True)
class Measure:
    """An accuracy in [0, 1] with its 95 % interval, and what it was measured on: holdout or cross-validation."""

    source: str
    labels: int
    accuracy: float
    low: float
    high: float
    macro_f1: float | None
    log_loss: float | None
    calibration_error: float | None


@dataclass(frozen=True)
class ModelView:
    """A model version. `labels` is how many it was trained on; `measure` is None where there were too few to tell, or
    labels are numbers. `measures` are all plain numbers that were measured, by name.
    """

    name: str
    number: int
    state: str
    parent: str | None
    labels: int
    method: str
    measure: Measure | None
    measures: dict[str, float]
    encoder_digest: str
    head_digest: str
    created_at: dt.datetime


@dataclass(frozen=True)
class CurvePoint:
    """One version on the learning curve."""

    version: str
    state: str
    labels: int
    measure: Measure


@dataclass(frozen=True)
class Curve:
    """The learning curve, by version, the advice read from its holdout points, and in a demo its random arm."""

    points: list[CurvePoint]
    advice: list[Advice]
    arms: list[ArmCurve]


def models(session: Session, project: Project, limit: int, newest: int | None = None) -> Page[ModelView]:
    """Versions, newest first, from number `newest` down."""
    query = sa.select(ModelVersion).where(ModelVersion.project_id == project.id)
    if newest is not None:
        query = query.where(ModelVersion.number <= newest)
    rows = session.scalars(query.order_by(ModelVersion.number.desc()).limit(limit + 1)).all()
    wanted = {row.parent_id for row in rows if row.parent_id is not None}
    parents = dict(
        session.execute(sa.select(ModelVersion.id, ModelVersion.number).where(ModelVersion.id.in_(wanted))).all()
    )
    return cut([view(row, parents) for row in rows], limit, lambda one: one.number)


def curve(session: Session, project: Project) -> Curve:
    """The newest 500 measured versions in the order in which they were made."""
    rows = session.execute(
        sa.select(ModelVersion.number, ModelVersion.state, ModelVersion.metrics, ModelVersion.lineage)
        .where(ModelVersion.project_id == project.id)
        .order_by(ModelVersion.number.desc())
        .limit(MOST_POINTS)
    ).all()
    points = [
        CurvePoint(f"v{number}", state, int(lineage.get("labels", 0)), measure)
        for number, state, metrics, lineage in reversed(rows)
        if (measure := measure_of(metrics)) is not None
    ]
    beside = comparisons(session, project.id, "demo")
    return Curve(points, advice(session, project), beside[0].arms if beside else [])


def measure_of(metrics: Mapping[str, Any]) -> Measure | None:
    """The evaluation that a version carries."""
    accuracy, interval = metrics.get("accuracy"), metrics.get("accuracy_interval")
    if accuracy is None or not isinstance(interval, dict):
        return None
    return Measure(
        source=str(metrics.get("source", "holdout")),
        labels=int(metrics.get("labels", 0)),
        accuracy=accuracy,
        low=interval["low"],
        high=interval["high"],
        macro_f1=metrics.get("macro_f1"),
        log_loss=metrics.get("log_loss"),
        calibration_error=metrics.get("calibration_error"),
    )


def view(row: ModelVersion, parents: Mapping[int, int] | None = None) -> ModelView:
    """The row as it is shown; `parents` are numbers of versions by id."""
    parents = parents or {}
    return ModelView(
        name=row.name,
        number=row.number,
        state=row.state,
        parent=f"v{parents[row.parent_id]}" if row.parent_id is not None and row.parent_id in parents else None,
        labels=int(row.lineage.get("labels", 0)),
        method=str(row.lineage.get("method", "")),
        measure=measure_of(row.metrics),
        measures={name: float(value) for name, value in row.metrics.items() if isinstance(value, int | float)},
        encoder_digest=row.encoder_digest,
        head_digest=row.head_digest,
        created_at=row.created_at,
    )

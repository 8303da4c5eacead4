"""Other ways to label, beside a project's own curve: the demo's random arm, and backtests on the project's labels.

Kept in the database, where the pages and the API find them. Torch-free.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Comparison, lock_project

Kind = Literal["demo", "backtest"]
MOST_BACKTESTS = 10
"""Of a project; the oldest go."""
MOST_STEPS = 60


@dataclass(frozen=True)
class ArmCurve:
    """What a way to label reached: mean `accuracy` over seeds at so many `labels`, and the lowest and highest of them.

    gain: the difference of its area under the curve to the baseline's, with its 95 % interval; needed: the labels that
    it took to reach the baseline's last accuracy. None where nobody asked, or where it did not get there.
    """

    name: str
    labels: list[int]
    accuracy: list[float]
    low: list[float]
    high: list[float]
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    needed: float | None = None


@dataclass(frozen=True)
class ComparisonView:
    """Arms beside one another, `baseline` among them; `facts` says how they were compared, `advice` what follows."""

    kind: Kind
    baseline: str
    arms: list[ArmCurve]
    advice: str
    facts: dict[str, Any]
    made_at: dt.datetime


def keep(
    session: Session,
    project_id: int,
    kind: Kind,
    baseline: str,
    arms: Sequence[ArmCurve],
    facts: Mapping[str, Any],
    advice: str = "",
) -> None:
    """Keep these arms; the same question asked again replaces its answer, and a demo has one. Idempotent."""
    lock_project(session, project_id)
    facts = json.loads(json.dumps(facts))
    left = MOST_BACKTESTS - 1
    for row in session.scalars(_of(project_id, kind)).all():
        if kind == "demo" or row.facts == facts or not left:
            session.delete(row)
        else:
            left -= 1
    values = [asdict(_thinned(arm)) for arm in arms]
    session.add(
        Comparison(project_id=project_id, kind=kind, baseline=baseline, facts=facts, arms=values, advice=advice)
    )


def comparisons(session: Session, project_id: int, kind: Kind) -> list[ComparisonView]:
    """Those of that kind, the newest first."""
    return [
        ComparisonView(kind, row.baseline, [ArmCurve(**arm) for arm in row.arms], row.advice, row.facts, row.created_at)
        for row in session.scalars(_of(project_id, kind))
    ]


def _of(project_id: int, kind: Kind) -> sa.Select[Comparison]:
    mine = sa.select(Comparison).where(Comparison.project_id == project_id, Comparison.kind == kind)
    return mine.order_by(Comparison.id.desc())


def _thinned(arm: ArmCurve) -> ArmCurve:
    """At most 60 steps of it, the last one among them."""
    every = -(-len(arm.labels) // MOST_STEPS) or 1
    at = range((len(arm.labels) - 1) % every, len(arm.labels), every)
    parts = {name: [getattr(arm, name)[one] for one in at] for name in ("labels", "accuracy", "low", "high")}
    return ArmCurve(**{**asdict(arm), **parts})

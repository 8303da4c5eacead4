"""The loop's state as Prometheus gauges, read from the database when they are scraped."""

import time
from collections.abc import Iterable

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend.database import Alert, Event, ModelVersion, Project, Round, reading
from backend.rounds.heartbeat import beating
from backend.web.views.models import measure_of
from backend.web.views.projects import counts

MOST_PROJECTS = 50  # the newest: a project's name is a label, and labels must not grow without bound
KEPT_S = 5.0


class LoopGauges(Collector):
    """Items, rounds, champions and workers. A database that is away shows as `nextbatch_database_up` 0."""

    def __init__(self) -> None:
        self._told: list[Metric] = []
        self._told_at = -KEPT_S

    def describe(self) -> Iterable[Metric]:
        """What `collect` can answer, without asking the database."""
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        """At most `KEPT_S` old."""
        if time.monotonic() - self._told_at > KEPT_S:
            self._told, self._told_at = _read(), time.monotonic()
        return self._told


def _families() -> dict[str, GaugeMetricFamily]:
    made = (
        GaugeMetricFamily("nextbatch_database_up", "1 while the database answers."),
        GaugeMetricFamily("nextbatch_workers_alive", "Workers that gave a sign of life of late."),
        GaugeMetricFamily(
            "nextbatch_items",
            "Items by what they are: labelled, holdout, in_batch, pool, new, failed, gone.",
            labels=("project", "state"),
        ),
        GaugeMetricFamily("nextbatch_rounds", "Rounds by state.", labels=("project", "state")),
        GaugeMetricFamily(
            "nextbatch_round_duration_seconds", "How long the last finished round took.", labels=("project",)
        ),
        GaugeMetricFamily(
            "nextbatch_round_end_timestamp_seconds", "When the last finished round ended.", labels=("project",)
        ),
        GaugeMetricFamily("nextbatch_events_waiting", "Events that no round has read yet.", labels=("project",)),
        GaugeMetricFamily("nextbatch_alerts", "Alerts by severity.", labels=("project", "severity")),
        GaugeMetricFamily(
            "nextbatch_champion_accuracy_ratio", "Accuracy of the version that answers.", labels=("project", "source")
        ),
        GaugeMetricFamily("nextbatch_champion_number", "N of the version vN that answers.", labels=("project",)),
    )
    return {family.name: family for family in made}


def _read() -> list[Metric]:
    families = _families()
    try:
        with reading() as session:
            _fill(session, families)
    except SQLAlchemyError:
        families = {"nextbatch_database_up": _families()["nextbatch_database_up"]}
        families["nextbatch_database_up"].add_metric((), 0)
    return list(families.values())


def _fill(session: Session, families: dict[str, GaugeMetricFamily]) -> None:
    families["nextbatch_database_up"].add_metric((), 1)
    families["nextbatch_workers_alive"].add_metric((), len(beating(session)))
    newest = sa.select(Project.id, Project.name).order_by(Project.id.desc()).limit(MOST_PROJECTS)
    names: dict[int, str] = dict(session.execute(newest).all())
    for project_id, name in names.items():
        for state, count in vars(counts(session, project_id)).items():
            families["nextbatch_items"].add_metric((name, state), count)
        _last_round(session, project_id, name, families)
    for table, column, metric in (
        (Round, Round.state, "nextbatch_rounds"),
        (Alert, Alert.severity, "nextbatch_alerts"),
    ):
        grouped = sa.select(table.project_id, column, sa.func.count()).where(table.project_id.in_(names))
        for project_id, value, count in session.execute(grouped.group_by(table.project_id, column)):
            families[metric].add_metric((names[project_id], value), count)
    waiting = sa.select(Event.project_id, sa.func.count()).where(Event.round_number.is_(None))
    for project_id, count in session.execute(waiting.group_by(Event.project_id)):
        if project_id in names:
            families["nextbatch_events_waiting"].add_metric((names[project_id],), count)
    champions = sa.select(ModelVersion).where(ModelVersion.state == "champion", ModelVersion.project_id.in_(names))
    for version in session.scalars(champions):
        name, measure = names[version.project_id], measure_of(version.metrics)
        families["nextbatch_champion_number"].add_metric((name,), version.number)
        if measure is not None:
            families["nextbatch_champion_accuracy_ratio"].add_metric((name, measure.source), measure.accuracy)


def _last_round(session: Session, project_id: int, name: str, families: dict[str, GaugeMetricFamily]) -> None:
    last = session.execute(
        sa.select(Round.started_at, Round.finished_at)
        .where(Round.project_id == project_id, Round.state == "done")
        .order_by(Round.number.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.started_at is not None and last.finished_at is not None:
        seconds = (last.finished_at - last.started_at).total_seconds()
        families["nextbatch_round_duration_seconds"].add_metric((name,), seconds)
        families["nextbatch_round_end_timestamp_seconds"].add_metric((name,), last.finished_at.timestamp())

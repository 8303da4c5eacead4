"""Labels that no webhook told of: Label Studio is asked now and then how many annotations there are."""

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from backend.database import Annotation, Event, Project, Round, reading, transaction
from backend.errors import NextbatchError
from backend.rounds.queue import LABEL_ACTIONS, is_resting, request_round
from backend.rounds.source import open_studio

log = structlog.get_logger()

RECONCILE_S = 60.0
RECONCILE = "reconcile"
"""The trigger of a round that labels without events asked for."""


class Reconciler:
    """Asks for a round where enough annotations came and not all events did. Call it every `RECONCILE_S`.

    What it saw the last time is its baseline, so that annotations which a round does not count (on tasks that are no
    items, say) ask once and not for ever.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def __call__(self) -> None:
        with reading() as session:
            projects = session.scalars(sa.select(Project).where(Project.studio_project_id.is_not(None))).all()
            idle = [project for project in projects if not _is_busy(session, project.id)]
        try:
            for project in idle:
                self._look(project)
        except NextbatchError as problem:
            log.info("reconcile.later", problem=str(problem))

    def _look(self, project: Project) -> None:
        with open_studio() as studio:
            facts = studio.get(f"/api/projects/{project.studio_project_id}/")
        there = int(facts["total_annotations_number"]) + int(facts["skipped_annotations_number"])
        with reading() as session:
            known = session.scalar(_count(Annotation, project.id).where(Annotation.deleted_at.is_(None))) or 0
            unread = _count(Event, project.id).where(Event.round_number.is_(None), Event.action.in_(LABEL_ACTIONS))
            told = session.scalar(unread) or 0
        missing = there - max(known + told, self._seen.get(project.id, 0))
        if not told < project.settings.trigger.new_labels <= told + missing:
            return
        self._seen[project.id] = there
        with transaction() as session:
            request_round(session, project.id, RECONCILE)
        log.warning("reconcile.labels_without_events", project=project.name, missing=missing)


def _is_busy(session: Session, project_id: int) -> bool:
    running = sa.exists().where(Round.project_id == project_id, Round.state.in_(("waiting", "running")))
    return bool(session.scalar(sa.select(running))) or is_resting(session, project_id)


def _count(table: type[Annotation] | type[Event], project_id: int) -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(table).where(table.project_id == project_id)

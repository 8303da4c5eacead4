"""Look at the labels before a round trains on them: findings become alerts, and some of them end the round."""

from collections.abc import Sequence

import sqlalchemy as sa
import structlog

from backend.database import Alert, ModelVersion, Project, Round, reading, transaction
from backend.errors import LabelsRefused
from backend.learning import registry
from backend.monitoring import labels as given
from backend.monitoring.finding import Finding
from backend.monitoring.validation import Before, examine
from backend.rounds import alarms
from backend.rounds.encoding import Embeddings
from backend.studio.labels import LabelTask

log = structlog.get_logger()


def validate(project: Project, round_: Round, parent: ModelVersion | None, embeddings: Embeddings) -> None:
    """Check the project's labels; write what is found as alerts.

    Raises LabelsRefused where a finding stops the round.

    Codes in ``validation.accept`` warn
    instead of stopping.
    """
    with reading() as session:
        rows = given.read(session, project.id)
    if not rows:
        return
    question = LabelTask.parse(project.label_config).question
    accepted = project.settings.validation.accept
    found = examine(rows, question, _before(parent), embeddings.gather)
    stops = [finding for finding in found if finding.severity == "stop" and finding.code not in accepted]
    alert(project.id, round_.id, found, stops)
    if stops:
        raise LabelsRefused(findings="\n".join(map(str, stops)), codes=", ".join(finding.code for finding in stops))


def _before(parent: ModelVersion | None) -> Before | None:
    if parent is None:
        return None
    classes = parent.lineage.get("classes") or registry.load_head(parent).classes
    return Before(tuple(classes), dict(parent.lineage.get("class_counts") or {}))


def alert(project_id: int, round_id: int, found: Sequence[Finding], stops: Sequence[Finding] = ()) -> None:
    """Write findings as alerts; one that says what the last alert of its code said is not repeated."""
    with transaction() as session:
        for finding in found:
            severity = "warn" if finding.severity == "stop" and finding not in stops else finding.severity
            message = str(finding).strip()
            last = session.scalar(
                sa.select(Alert.message)
                .where(Alert.project_id == project_id, Alert.code == finding.code)
                .order_by(Alert.id.desc())
                .limit(1)
            )
            if last == message:
                continue
            words = {"evidence": finding.evidence, "mend": finding.mend}
            alarms.write(session, project_id, severity, finding.code, message, round_id=round_id, **words)

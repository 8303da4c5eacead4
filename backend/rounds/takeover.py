"""What dead workers held goes on elsewhere: rounds, jobs, and changes of an encoder."""

import sqlalchemy as sa
import structlog
from dbos import DBOS
from sqlalchemy.orm import Session

from backend.database import EncoderChange, Job, Round, now, reading, transaction
from backend.rounds.changes import OPEN
from backend.rounds.heartbeat import beating
from backend.rounds.queue import CHANGES, JOBS, ORPHANS, ROUNDS

log = structlog.get_logger()

_GOES_ON_IN = {ROUNDS: ROUNDS, JOBS: ORPHANS, ORPHANS: ORPHANS, CHANGES: CHANGES}
_UNTOLD = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")  # ends of a workflow that its row may not tell


def take_over(executor_id: str) -> None:
    """Resume what workers held whose heart stopped, and mark what ended without saying so.

    One worker does it for all, the first by name: two that saw the same orphan would let it run twice.
    """
    with reading() as session:
        alive = beating(session)
        if min(alive, default=executor_id) != executor_id:
            return
        under_way = _under_way(session)
    held = DBOS.list_workflows(status="PENDING", queue_name=list(_GOES_ON_IN), load_input=False, load_output=False)
    for queue in (ROUNDS, ORPHANS, CHANGES):
        orphans = [
            one.workflow_id
            for one in held
            if _GOES_ON_IN.get(one.queue_name or "") == queue and one.executor_id not in alive | {executor_id}
        ]
        if orphans:
            log.warning("worker.takes_over", workflows=orphans, executor=executor_id)
            DBOS.resume_workflows(orphans, queue_name=queue)
    if not under_way:
        return
    ended = DBOS.list_workflows(workflow_ids=list(under_way), status=list(_UNTOLD), load_input=False, load_output=False)
    for workflow in ended:
        end = {"state": "failed", "failure": workflow.status, "finished_at": now()}
        with transaction() as session:
            session.execute(under_way[workflow.workflow_id].values(end))


def _under_way(session: Session) -> dict[str, sa.Update]:
    """What our tables call under way, by the engine's id of it: the update of that row, if it still is."""
    rows: tuple[tuple[type[Round | Job | EncoderChange], sa.ColumnElement[str], sa.ColumnElement[bool]], ...] = (
        (Round, Round.workflow_id.expression, Round.state.in_(("waiting", "running"))),
        (Job, "job:" + sa.cast(Job.id, sa.String), Job.state == "running"),  # of those that wait there may be 10,000
        (EncoderChange, "encoder_change:" + sa.cast(EncoderChange.id, sa.String), EncoderChange.state.in_(OPEN)),
    )
    return {
        name: sa.update(table).where(table.id == id_, is_open)
        for table, names, is_open in rows
        for name, id_ in session.execute(sa.select(names, table.id).where(is_open))
    }

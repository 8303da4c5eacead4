"""Alerts: written with what was seen, how sure it is and what to do; told to a webhook, signed, until it takes them.

The table is its own outbox: an alert is written in its round's transaction and told afterwards, by any worker that
makes rounds. What is told twice, because a worker died in between, has the same id.
"""

import datetime as dt
import hashlib
import hmac
import json
from typing import Any

import httpx
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from backend.database import Alert, Project, Round, now, reading, transaction
from backend.monitoring.finding import Severity
from backend.settings import settings

log = structlog.get_logger()

TOLD_WITHIN = dt.timedelta(hours=24)
"""What could not be told for so long stays in the table and is told to nobody."""

_AT_ONCE = 20
_TIMEOUT_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 10, 3_600
_CLAIM_S = 60.0  # longer than a call takes; whoever claims and dies lets it go after this


def write(
    session: Session,
    project_id: int,
    severity: Severity,
    code: str,
    message: str,
    *,
    evidence: str = "",
    mend: str = "",
    round_id: int | None = None,
) -> Alert:
    """An alert, in the caller's transaction, and a line in the log. `message` says all of it, for people."""
    alert = Alert(project_id=project_id, round_id=round_id, severity=severity, code=code, message=message)
    alert.evidence, alert.mend = evidence, mend
    session.add(alert)
    tell = log.info if severity == "note" else log.warning
    tell("alert", project=project_id, severity=severity, code=code, message=message)
    return alert


def sign(secret: str, at: int, body: bytes) -> str:
    """The signature's header: when it was signed, in seconds since 1970, and HMAC-SHA256 of ``at.body`` in hex."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def deliver() -> int:
    """Tell the webhook what it was not told yet; returns how many it took. Nothing without NEXTBATCH_ALERT_URL.

    What fails is due again after 10 s, doubled each time, up to an hour, for a day. Redirects are not followed.
    """
    url, secret = settings().alert_url, settings().alert_secret
    if url is None or secret is None:
        return 0
    taken = 0
    with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
        for alert_id in _due():
            body = _claim(alert_id)
            if body is None:
                continue
            data = json.dumps(body, ensure_ascii=False, sort_keys=True).encode()
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": f"nextbatch-alert-{alert_id}",
                "X-Nextbatch-Signature": sign(secret.get_secret_value(), int(now().timestamp()), data),
            }
            try:
                with client.stream("POST", url, content=data, headers=headers) as answer:  # what it says may be endless
                    answer.raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as problem:
                _wait(alert_id)
                log.warning("alert.not_told", alert=alert_id, cause=type(problem).__name__)
                continue
            with transaction() as session:
                session.execute(sa.update(Alert).where(Alert.id == alert_id).values(delivered_at=now()))
            taken += 1
    return taken


def _due() -> list[int]:
    open_ = (Alert.delivered_at.is_(None), Alert.due_at <= now(), Alert.created_at > now() - TOLD_WITHIN)
    with reading() as session:
        return list(session.scalars(sa.select(Alert.id).where(*open_).order_by(Alert.id).limit(_AT_ONCE)))


def _claim(alert_id: int) -> dict[str, Any] | None:
    """The alert as JSON, if no other worker tells it just now."""
    with transaction() as session:
        mine = sa.update(Alert).where(Alert.id == alert_id, Alert.delivered_at.is_(None), Alert.due_at <= now())
        claimed = mine.values(due_at=now() + dt.timedelta(seconds=_CLAIM_S), attempts=Alert.attempts + 1)
        if session.connection().execute(claimed).rowcount != 1:
            return None
        row = session.execute(
            sa.select(Alert, Project.name, Round.number)
            .join(Project, Project.id == Alert.project_id)
            .join(Round, Round.id == Alert.round_id, isouter=True)
            .where(Alert.id == alert_id)
        ).one()
        alert, project, number = row
        return {
            "id": alert.id,
            "project": project,
            "round": number,
            "severity": alert.severity,
            "code": alert.code,
            "message": alert.message,
            "evidence": alert.evidence,
            "mend": alert.mend,
            "at": alert.created_at.isoformat(timespec="seconds"),
        }


def _wait(alert_id: int) -> None:
    with transaction() as session:
        alert = session.get_one(Alert, alert_id)
        wait_s = min(_FIRST_WAIT_S * 2 ** (alert.attempts - 1), _LONGEST_WAIT_S)
        alert.due_at = now() + dt.timedelta(seconds=wait_s)

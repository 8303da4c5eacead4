"""The encoder in use, and how far a change to another one is."""

import datetime as dt
from dataclasses import dataclass

from sqlalchemy.orm import Session

from backend.database import Project
from backend.rounds import changes
from backend.rounds.items import Named
from backend.scoring.stages import Speed


@dataclass(frozen=True)
class ChangeView:
    """The newest change of the encoder: waiting, checking, encoding, ready, in_use, replaced, failed or cancelled.

    `done` of `total` items have an embedding of the encoder `to`, and `left_s` seconds are left at this speed.
    """

    id: int
    to: str
    state: str
    actor: str
    done: int | None
    total: int | None
    left_s: float | None
    switched_round: int | None
    failure: str | None
    created_at: dt.datetime
    finished_at: dt.datetime | None


@dataclass(frozen=True)
class EncoderView:
    """The encoder in use, by name and digest (empty before the first scan), and the change from it or to it."""

    name: str
    digest: str
    change: ChangeView | None


def encoder_view(session: Session, project: Project) -> EncoderView:
    """What encodes this project's items. Cost: one look into an index."""
    used = None if project.encoder is None else Named.model_validate(project.encoder)
    change = changes.latest(session, project.id)
    shown = None
    if change is not None:
        told = change.progress
        shown = ChangeView(
            id=change.id,
            to=str(Named.model_validate(change.encoder)),
            state=change.state,
            actor=change.actor,
            done=told.get("done"),
            total=told.get("total"),
            left_s=Speed.from_dict(told).left_s if change.state == "encoding" else None,
            switched_round=change.switched_round,
            failure=change.failure,
            created_at=change.created_at,
            finished_at=change.finished_at,
        )
    return EncoderView(project.settings.encoder.name if used is None else str(used), used.digest if used else "", shown)

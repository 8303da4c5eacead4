"""From one encoder to another, as seen from outside: who asks for it, how far it is, and the switch. Torch-free.

    waiting → checking → encoding → ready → in_use → replaced
         └─────────┴──────────┴────────┴─→ failed | cancelled

`changeover` does the work from waiting to ready, while rounds go on with the encoder in use. A round that begins and
finds a ready one switches. One change of a project is open at a time: whoever asks for another encoder ends it.
"""

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import EncoderChange, Item, ModelChange, ModelVersion, Project, Round, lock_project, now
from backend.learning import registry
from backend.rounds import hand
from backend.rounds.items import Named, encoder_for, encoder_of, refuse_unchecked, wanted_encoder
from backend.rounds.queue import HERE, request_change
from backend.settings import EncoderSection
from backend.studio.labels import LabelTask

OPEN = ("waiting", "checking", "encoding", "ready")
BY_CONFIGURATION = "configuration"
PROMOTIONS = ("promote", "rollback")
COMMAND_LIVES = dt.timedelta(hours=1)
"""A round that a command runs in its own process keeps others from switching for so long: it may have been killed."""


def ask(session: Session, project: Project, wanted: Named, actor: str) -> EncoderChange | None:
    """Change to this encoder, in this transaction; an open change to another one is given up.

    Returns the change that leads there, which may be open already; None where the encoder is in use. `wanted` may name
    a digest that was exported, or leave it empty: then its weights are exported first.
    """
    lock_project(session, project.id)
    going = open_change(session, project.id)
    if going is not None:
        if is_same(Named.model_validate(going.encoder), wanted):
            return going
        cancel(session, going, actor)
    if is_same(Named.model_validate(encoder_of(project).model_dump()), wanted):
        if (last := latest(session, project.id)) is not None and last.state == "failed":
            last.state = "cancelled"  # nobody wants it any more
        return None
    change = EncoderChange(project_id=project.id, encoder=wanted.model_dump(mode="json"), actor=actor[:128])
    session.add(change)
    session.flush()
    hand.note(session, project.id, actor, "encoder", f"change to {wanted}")
    request_change(session, change.id)
    return change


def cancel(session: Session, change: EncoderChange, actor: str) -> None:
    """Give up an open change; whoever works on it notices within a second or two. What was encoded stays."""
    change.state, change.finished_at = "cancelled", now()
    hand.note(session, change.project_id, actor, "encoder", f"no change to {Named.model_validate(change.encoder)}")


def follow_configuration(session: Session, project: Project, before: EncoderSection) -> None:
    """The configuration was replaced: change to the encoder that it names now, if it named another one `before`.

    To store it once more tries a failed change again. Nothing is asked for a project that has encoded nothing: its
    first scan takes what is configured. Raises EncoderMismatch, Int8Missing.
    """
    refuse_unchecked(project)
    is_begun = sa.exists().where(Item.project_id == project.id, Item.state == "encoded")
    if project.encoder is None:
        if not session.scalar(sa.select(is_begun)):
            return
        was = encoder_for(LabelTask.parse(project.label_config).kind, before)
        project.encoder = Named(**was.model_dump()).model_dump(mode="json")
    last = latest(session, project.id)
    is_failed = last is not None and last.state == "failed" and last.actor == BY_CONFIGURATION
    if before != project.settings.encoder or is_failed:
        ask(session, project, wanted_encoder(project), BY_CONFIGURATION)


def follow_champion(session: Session, project: Project) -> None:
    """Somebody let a version of another encoder answer: change to its encoder, whose embeddings are still there.

    A champion that has only outlived a switch is left to the next round, which fits a new one.
    """
    champion = registry.champion(session, project.id)
    used = "" if project.encoder is None else Named.model_validate(project.encoder).digest
    if champion is None or not used or champion.encoder_digest == used:
        return
    crowned = session.scalar(
        sa.select(sa.func.max(ModelChange.created_at)).where(
            ModelChange.version_id == champion.id, ModelChange.action.in_(PROMOTIONS)
        )
    )
    past = _changes(session, project.id)
    named = _named(past, champion.encoder_digest)
    if crowned is None or named is None:
        return
    if all((change.switched_at or change.created_at) < crowned for change in past):
        ask(session, project, named, f"promotion of {champion.name}")


def awaits(session: Session, project_id: int, version: ModelVersion) -> bool:
    """Whether the project is on its way to the encoder of this version."""
    going = open_change(session, project_id)
    return going is not None and Named.model_validate(going.encoder).digest == version.encoder_digest


def choosing(session: Session, project_id: int, encoder_digest: str) -> ModelVersion | None:
    """The version that a round over these embeddings chooses with: the champion, or where that one reads another
    encoder's, the newest of this encoder."""
    answering = registry.champion(session, project_id)
    if answering is None or answering.encoder_digest == encoder_digest:
        return answering
    return session.scalar(
        sa.select(ModelVersion)
        .where(ModelVersion.project_id == project_id, ModelVersion.encoder_digest == encoder_digest)
        .where(ModelVersion.state.not_in(("refused", "deleted")))
        .order_by(ModelVersion.number.desc())
        .limit(1)
    )


def switch(session: Session, project: Project, number: int) -> EncoderChange | None:
    """At the begin of round `number`: use the encoder that is ready, if there is one and no other round runs.

    In the round's own transaction. Run again it finds nothing to do.
    """
    lock_project(session, project.id)
    ready = open_change(session, project.id)
    is_alive = ~Round.workflow_id.startswith(HERE) | (Round.created_at > now() - COMMAND_LIVES)
    others = sa.exists().where(
        Round.project_id == project.id, Round.state == "running", Round.number != number, is_alive
    )
    if ready is None or ready.state != "ready" or session.scalar(sa.select(others)):
        return None
    for change in _changes(session, project.id):
        if change.state == "in_use":
            change.state = "replaced"
    ready.previous, project.encoder = project.encoder, ready.encoder
    ready.state, ready.switched_round, ready.switched_at = "in_use", number, now()
    hand.note(session, project.id, f"round {number}", "encoder", f"{Named.model_validate(ready.encoder)} is in use")
    return ready


def open_change(session: Session, project_id: int) -> EncoderChange | None:
    """The change that is under way, or ready."""
    mine = sa.select(EncoderChange).where(EncoderChange.project_id == project_id, EncoderChange.state.in_(OPEN))
    return session.scalar(mine.order_by(EncoderChange.id.desc()).limit(1))


def latest(session: Session, project_id: int) -> EncoderChange | None:
    """The newest change, however it ended."""
    mine = sa.select(EncoderChange).where(EncoderChange.project_id == project_id)
    return session.scalar(mine.order_by(EncoderChange.id.desc()).limit(1))


def is_same(one: Named, other: Named) -> bool:
    """Whether both mean one encoder: by digest where both have one, else by name, weights and precision."""
    if one.digest and other.digest:
        return one.digest == other.digest
    return one.model_dump(exclude={"digest"}) == other.model_dump(exclude={"digest"})


def _changes(session: Session, project_id: int) -> Sequence[EncoderChange]:
    mine = sa.select(EncoderChange).where(EncoderChange.project_id == project_id)
    return session.scalars(mine.order_by(EncoderChange.id)).all()


def _named(past: Sequence[EncoderChange], digest: str) -> Named | None:
    """The encoder of that digest, as a change named it that led to it or away from it."""
    for change in reversed(past):
        for facts in (change.encoder, change.previous):
            if facts is not None and facts.get("digest") == digest:
                return Named.model_validate(facts)
    return None

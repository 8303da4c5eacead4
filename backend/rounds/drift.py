"""After the batch is out: did what came, or what people say of it, change? All tests together, as alerts."""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from backend.database import (
    Annotation,
    Batch,
    Item,
    ItemFacts,
    ModelVersion,
    Pick,
    Project,
    Round,
    reading,
    transaction,
)
from backend.errors import NextbatchError
from backend.learning import registry
from backend.monitoring.acceptance import Answer, check_acceptance, read
from backend.monitoring.arrivals import check_arrivals, check_inputs, samples
from backend.monitoring.concept import Judged, check_errors
from backend.monitoring.suspicion import Suspicion, believed
from backend.pool.facts import facts
from backend.rounds.encoding import Embeddings, open_embeddings, source_config
from backend.rounds.items import opened
from backend.rounds.queue import request_round
from backend.rounds.validate import alert
from backend.studio.labels import LabelTask
from strategies import Task

log = structlog.get_logger()

MOST_READ = 200
"""Items of either side whose bytes are read for their plain numbers; those of the known side only once."""


def watch(project_id: int, number: int) -> dict[str, Any]:
    """Test what came since the model before this round's; findings become alerts, and never fail the round."""
    with reading() as session:
        project = session.get_one(Project, project_id)
        round_ = session.scalars(sa.select(Round).where(Round.project_id == project_id, Round.number == number)).one()
        before = _model_before(session, project_id, round_)
        suspected = check_errors(*_judged(session, project_id, before))
        suspected += check_acceptance(*_answers(session, project_id, before))
        if before is None:
            return {}
        known, new = samples(session, project_id, before.created_at)
    embeddings = open_embeddings(project)
    try:
        suspected += _of_arrivals(project, before, embeddings, known, new)
    except (NextbatchError, OSError) as problem:
        log.warning("drift.arrivals_not_looked_at", project=project.name, problem=str(problem))
    found = believed(suspected)
    alert(project_id, round_.id, found)
    if project.settings.feedback.round_on_fall and any(finding.code == "acceptance_fell" for finding in found):
        with transaction() as session:
            request_round(session, project_id, "acceptance_fell")
    return {"tests": len(suspected), "drifted": [finding.code for finding in found]} if suspected else {}


def _model_before(session: Session, project_id: int, round_: Round) -> ModelVersion | None:
    """The champion as it was when the round began: the parent of what the round promoted."""
    champion = registry.champion(session, project_id)
    if champion is None or champion.round_id != round_.id:
        return champion
    return session.get(ModelVersion, champion.parent_id) if champion.parent_id is not None else None


def _judged(session: Session, project_id: int, before: ModelVersion | None) -> tuple[list[Judged], int]:
    """Randomly drawn items that a model had predicted before people labelled them, in the order of their first label;
    and how many of them were labelled since the model before."""
    since = before.created_at if before is not None else dt.datetime.max.replace(tzinfo=dt.UTC)
    rows = session.execute(
        sa.select(Annotation.item_id, Pick.prediction, Annotation.label, Annotation.created_at)
        .join(Pick, Pick.item_id == Annotation.item_id)
        .join(Batch, Batch.id == Pick.batch_id)
        .where(Batch.project_id == project_id, Pick.is_random_slice, Pick.prediction.is_not(None))
        .where(Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
        .order_by(Annotation.created_at, Annotation.external_id, Batch.number.desc())
    )
    first: dict[int, tuple[Judged, dt.datetime]] = {}
    for item_id, prediction, label, at in rows:
        if prediction:  # a JSON null is not SQL's
            first.setdefault(item_id, (Judged(str(prediction["label"]), str(label)), at))
    return [one for one, _ in first.values()], sum(at > since for _, at in first.values())


def _answers(session: Session, project_id: int, before: ModelVersion | None) -> tuple[list[Answer], int]:
    """What people did with predictions, and how many of those answers came since the model before."""
    if before is None:
        return [], 0
    answers, ids = read(session, project_id)
    since = sa.select(sa.func.min(Annotation.id)).where(
        Annotation.project_id == project_id, Annotation.created_at > before.created_at
    )
    first = session.scalar(since)
    return answers, 0 if first is None else sum(id_ >= first for id_ in ids)


def _of_arrivals(
    project: Project, before: ModelVersion, embeddings: Embeddings, known: Sequence[str], new: Sequence[str]
) -> list[Suspicion]:
    if before.encoder_digest != embeddings.digest or before.state == "deleted":
        return []
    head = registry.load_head(before)
    predict = None if head.task == Task.REGRESSION else head.predict
    suspected = check_arrivals(known, new, embeddings.gather, predict, head.classes)
    if not suspected:  # too few came
        return []
    fresh = [hash_ for hash_ in new if hash_ not in set(known)]
    return suspected + check_inputs(*(_facts(project, side[:MOST_READ]) for side in (known, fresh)))


def _facts(project: Project, hashes: Sequence[str]) -> list[Mapping[str, float]]:
    """Plain numbers of these contents, read from their source where they are not known yet."""
    with reading() as session:
        there = sa.select(ItemFacts).where(ItemFacts.content_hash.in_(hashes))
        have = {row.content_hash: row.facts for row in session.scalars(there)}
        missing = [hash_ for hash_ in hashes if hash_ not in have]
        of = (Item.project_id == project.id, Item.content_hash.in_(missing), Item.state == "encoded")
        rows = session.execute(sa.select(Item.content_hash, Item.uri).where(*of))
        uris = {hash_: uri for hash_, uri in rows if hash_}
    if uris:
        measured = asyncio.run(_measured(project, uris))
        with transaction() as session:
            for hash_, one in measured.items():
                session.merge(ItemFacts(content_hash=hash_, facts=one))
        have |= measured
    return [have[hash_] for hash_ in hashes if hash_ in have]


async def _measured(project: Project, uris: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Plain numbers by content hash of what can still be read."""
    task = LabelTask.parse(project.label_config)
    async with opened(source_config(project.settings), task.is_inline) as fetch:
        blobs = await asyncio.gather(*(fetch(uri) for uri in uris.values()), return_exceptions=True)
    found: dict[str, dict[str, float]] = {}
    for hash_, blob in zip(uris, blobs, strict=True):
        if not isinstance(blob, bytes):
            continue
        try:
            found[hash_] = dict(facts(blob, task.kind))
        except NextbatchError:
            continue
    return found

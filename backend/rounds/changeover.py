"""The change of an encoder, as a durable workflow beside the rounds: try it, encode the pool with it, be ready.

Nothing that answers is touched before a round switches (`changes.switch`), and what fails leaves all as it was. Every
step may run again: the vectors that are stored are found, and the model that is loaded stays.
"""

from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from dbos import DBOS

from backend.database import EncoderChange, ModelVersion, Project, Round, lock_project, now, reading, transaction
from backend.errors import ChangeCancelled, EncoderRefused
from backend.logs import about
from backend.monitoring.finding import Severity
from backend.pool import catalog
from backend.rounds import alarms, encoding, graph
from backend.rounds.changes import OPEN
from backend.rounds.comparison import compare
from backend.rounds.items import Named
from backend.rounds.queue import request_round
from backend.rounds.steps import reason_of, step
from backend.rounds.trial import try_out
from backend.scoring.pipeline import ScanConfig, ScanItem
from backend.scoring.repository import model_name
from backend.scoring.servers import addresses
from backend.scoring.stages import Stages
from backend.scoring.triton import unload
from backend.settings import settings

log = structlog.get_logger()

GENTLE = ScanConfig(fetches=16, decoders=1, in_flight=1)  # beside rounds and /predict, which somebody waits for
REST = 64  # items that came meanwhile: so few are left to the round that switches
_PASSES = 8
_MAY_FAIL, _MAY_FAIL_SHARE = 10, 0.01  # a file may have gone; an encoder that fails on more is not used
_UNLOAD_S = 30.0
_MEND = "Mend that and store the configuration again (nextbatch apply FILE --yes), or set the encoder back."


@DBOS.workflow(name="encoder_change", max_recovery_attempts=20)
def run_change(change_id: int) -> dict[str, Any]:
    """From waiting to ready, or to failed: one id in, a small report out."""
    with about(change=change_id, run=DBOS.workflow_id):
        return in_order(change_id)


def in_order(change_id: int) -> dict[str, Any]:
    """The steps of a change in order; also without the engine."""
    try:
        if not check(change_id):
            return {}
        encode_pool(change_id)
        draw_graph(change_id)
        return get_ready(change_id)
    except Exception as failure:
        if fail(change_id, reason_of(failure)):
            raise
        return {}  # it was cancelled


@step("check")
def check(change_id: int) -> bool:
    """Export, load, warm up and compare with the reference; False where it turns out to be the encoder in use."""
    change, project = _enter(change_id, "checking")
    wanted = Named.model_validate(change.encoder)
    spec = encoding.spec_of(wanted)  # not from memory: its file may have been mended under the same name
    known = wanted.model_copy(update={"digest": spec.digest}).model_dump(mode="json")
    used = "" if project.encoder is None else Named.model_validate(project.encoder).digest
    with transaction() as session:
        change = _still_open(session, change_id)
        change.encoder = known
        if spec.digest == used:
            session.get_one(Project, project.id).encoder = known
            change.state, change.finished_at, change.unloaded_at = "replaced", now(), now()
            return False
    seen = try_out(project, spec).as_dict()
    with transaction() as session:
        _still_open(session, change_id).report = seen
    log.info("encoder_change.checked", encoder=spec.digest, **seen)
    return True


@step("encode_pool")
def encode_pool(change_id: int) -> dict[str, Any]:
    """Embeddings of every encoded item by the new encoder too, gently; what came meanwhile in a further pass.

    The items keep their state: rounds go on with the encoder in use. Raises EncoderRefused where too many fail.
    """
    change, project = _enter(change_id, "encoding")
    section = Named.model_validate(change.encoder)
    store = encoding.embeddings_of(section).store
    tried: set[int] = set()
    failed: dict[int, str] = {}
    encoded = total = 0
    with store.held():
        for number in range(_PASSES):
            with reading() as session:
                items = catalog.encoded_items(session, project.id)
            total = len(items)
            rows = store.locate([content_hash for _, _, content_hash in items])
            missing = [items[at][:2] for at in np.flatnonzero(rows < 0) if items[at][0] not in tried]
            if not missing or (number and len(missing) <= REST):
                break
            tried.update(id_ for id_, _ in missing)
            stages, before = Stages(), total - len(missing)

            def tell(done: int, of: int, stages: Stages = stages, before: int = before, total: int = total) -> None:
                speed = stages.look(of - done).as_dict()
                with transaction() as session:
                    _still_open(session, change_id).progress = {"done": before + done, "total": total, **speed}

            waiting = (ScanItem(id_, uri) for id_, uri in missing)
            found = encoding.scan(
                project,
                waiting,
                len(missing),
                store,
                lambda _: None,
                tell,
                None,
                stages,
                section,
                failed.update,
                GENTLE,
            )
            encoded += found.encoded
    if len(failed) > max(_MAY_FAIL, _MAY_FAIL_SHARE * total):
        problem = (
            f"{len(failed)} of {total} items cannot be encoded, one of them because: {next(iter(failed.values()))}"
        )
        raise EncoderRefused(name=section.name, problem=problem, mend="")
    with transaction() as session:
        change = _still_open(session, change_id)
        change.report = {**change.report, "encoded": encoded, "failed": len(failed)}
        change.progress = {"done": total - len(failed), "total": total}
    return {"encoded": encoded, "failed": len(failed)}


@step("draw_graph")
def draw_graph(change_id: int) -> None:
    """The pool's neighbour graph in the new embeddings, so that the round that switches need not wait for it."""
    change, project = _enter(change_id, "encoding")
    graph.refresh(project.id, encoding.embeddings_of(Named.model_validate(change.encoder)))


@step("ready")
def get_ready(change_id: int) -> dict[str, Any]:
    """The next round that begins switches; it is asked for."""
    with transaction() as session:
        change = _still_open(session, change_id)
        change.state, change.finished_at = "ready", now()
        request_round(session, change.project_id, "encoder")
        log.info("encoder_change.ready", project=change.project_id, **change.report)
        return change.report


@step("fail_change")
def fail(change_id: int, reason: str) -> bool:
    """All stays as it was, and people are told. False where the change had been cancelled: nobody is told of that."""
    with transaction() as session:
        change = _locked(session, change_id)
        is_failure = change.state in OPEN
        if is_failure:
            change.state, change.failure, change.finished_at = "failed", reason, now()
            name = Named.model_validate(change.encoder)
            message = f"The encoder was not changed to {name}: {reason}"
            alarms.write(session, change.project_id, "warn", "encoder_refused", message, evidence=reason, mend=_MEND)
            log.error("encoder_change.failed", reason=reason)
        project_id = change.project_id
    put_away(project_id, 0)
    return is_failure


def judge(project_id: int, number: int) -> dict[str, Any]:
    """Tell how the first model on a new encoder does beside the last one on the old, on the same holdout. Once."""
    with reading() as session:
        change = session.scalar(_of(project_id, "in_use"))
        mine = (Round.project_id == project_id, Round.number == number)
        version = session.scalar(sa.select(ModelVersion).join(Round, Round.id == ModelVersion.round_id).where(*mine))
        if change is None or version is None or "judged" in change.report or version.parent_id is None:
            return {}
        before = session.get_one(ModelVersion, version.parent_id)
        if before.encoder_digest == version.encoder_digest or before.state == "deleted":
            return {}
        found = compare(session, version, before)
    if found is None:
        return {}
    one = found.comparison
    seen = f"{one.gap} beside {before.name} on {one.labels} labels of the holdout"
    with transaction() as session:
        changed = session.get_one(EncoderChange, change.id)
        changed.report = {**changed.report, "judged": seen}
        message = f"{version.name} is the first model on {Named.model_validate(change.encoder)}: {seen}."
        mend = f"To go back: nextbatch models promote … {before.name}." if one.is_worse else ""
        severity: Severity = "warn" if one.is_worse else "note"
        alarms.write(session, project_id, severity, "encoder_changed", message, evidence=seen, mend=mend)
    return {"encoder": seen}


def put_away(project_id: int, number: int) -> dict[str, Any]:
    """Unload what Triton need not hold any more: encoders that were replaced before round `number`, and refused ones.

    Not what a project, its champion or challenger, or an open change still uses; that is looked at again in the next
    round. A server that is away, or that loads models by itself, is left alone.
    """
    done = []
    with reading() as session:
        left = sa.select(EncoderChange).where(
            EncoderChange.project_id == project_id,
            EncoderChange.unloaded_at.is_(None),
            EncoderChange.state.not_in(OPEN),
        )
        changes, kept = session.scalars(left.order_by(EncoderChange.id)).all(), _kept(session)
    for change in changes:
        is_switched = change.state in ("in_use", "replaced")
        gone = change.previous if is_switched else change.encoder
        if is_switched and (change.switched_round or 0) >= number:
            continue
        named = None if gone is None else Named.model_validate(gone)
        if named is not None and named.digest:
            if named.digest in kept:
                continue
            _unload(named)
            done.append(str(named))
        with transaction() as session:
            session.get_one(EncoderChange, change.id).unloaded_at = now()
    return {"unloaded": done} if done else {}


def _kept(session: sa.orm.Session) -> set[str]:
    """Digests that somebody uses."""
    used = [project.encoder for project in session.scalars(sa.select(Project))]
    used += session.scalars(sa.select(EncoderChange.encoder).where(EncoderChange.state.in_(OPEN)))
    answering = sa.select(ModelVersion.encoder_digest).where(ModelVersion.state.in_(("champion", "challenger")))
    return {encoder["digest"] for encoder in used if encoder} | set(session.scalars(answering.distinct()))


def _unload(named: Named) -> None:
    from tritonclient.utils import InferenceServerException

    for url in addresses(settings().triton_url or ""):
        try:
            unload(url, model_name(named.name, named.digest), _UNLOAD_S)
        except InferenceServerException as problem:
            log.warning("encoder_change.not_unloaded", url=url, encoder=str(named), problem=problem.message())
    encoding.open_encoder.cache_clear()  # where there is no Triton, it is held there


def _enter(change_id: int, state: str) -> tuple[EncoderChange, Project]:
    """The change in that state, and its project. Raises ChangeCancelled."""
    with transaction() as session:
        change = _still_open(session, change_id)
        change.state = state
        log.info("encoder_change.step", state=state, encoder=str(Named.model_validate(change.encoder)))
        return change, session.get_one(Project, change.project_id)


def _still_open(session: sa.orm.Session, change_id: int) -> EncoderChange:
    """The change, which nobody else changes until the transaction ends. Raises ChangeCancelled."""
    change = _locked(session, change_id)
    if change.state not in OPEN:
        raise ChangeCancelled
    return change


def _locked(session: sa.orm.Session, change_id: int) -> EncoderChange:
    """The project first, as whoever asks for another encoder has it: the other way round each waits for the other."""
    change = session.get_one(EncoderChange, change_id)
    lock_project(session, change.project_id)
    session.refresh(change, with_for_update=True)
    return change


def _of(project_id: int, state: str) -> sa.Select[EncoderChange]:
    mine = sa.select(EncoderChange).where(EncoderChange.project_id == project_id, EncoderChange.state == state)
    return mine.order_by(EncoderChange.id.desc()).limit(1)

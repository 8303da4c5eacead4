"""A project's encoder, trained further on what people labelled: a new encoder, which the project may be given."""

import hashlib
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.artefacts import whole
from backend.database import Project, now, reading, transaction
from backend.errors import NotFineTunable
from backend.learning import encoders, registry
from backend.learning.encoders import EncoderSpec
from backend.learning.finetune_plan import WEIGHTS, Outcome, Plan, record, recorded, split
from backend.learning.finetune_run import Run, Tell
from backend.learning.provenance import provenance
from backend.pool.catalog import Labelled, labelled
from backend.rounds import configured, hand
from backend.rounds.encoding import open_embeddings
from backend.rounds.images import images_of
from backend.rounds.items import encoder_of
from backend.rounds.learn import snapshot_of
from backend.settings import EncoderSection, settings
from backend.studio.labels import LabelTask
from strategies import Task

log = structlog.get_logger()

FEWEST = 50
_MADE = "made.digest"


@dataclass(frozen=True)
class FineTuned:
    """What came of it. `spec` is the new encoder, None where no epoch was better than the encoder as it was.

    `weights` is what `encoder.weights` names to use it; `skipped` labelled images could not be read.
    """

    spec: EncoderSpec | None
    weights: Path | None
    plan: Plan
    outcome: Outcome
    skipped: int


def fine_tune(project_id: int, actor: str, tell: Tell, cancel: threading.Event | None = None) -> FineTuned | None:
    """Train the project's encoder on its labels, without the holdout, in a child process; None where `cancel` was set.

    The same labels, options and seed are the same run: killed or cancelled, the next call goes on from its checkpoint,
    and once it is done it is found. The project's own encoder is not touched. Raises NotFineTunable, FineTuneRunning,
    FineTuneFailed.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        asked = LabelTask.parse(project.label_config)
        known = labelled(session, project_id, asked.question)
    if asked.task != Task.CLASSIFICATION:
        problem = "an item may have several labels, or a number"
        raise NotFineTunable(problem=problem, mend="Encoders are trained where an item has exactly one class.")
    classes = asked.choices
    known = [row for row in known if row.label in classes]
    rows = [row for row in known if not row.is_holdout]
    parent = open_embeddings(project).spec
    _check(parent, rows)
    options, seed = project.settings.fine_tune, project.settings.seed
    labels = np.array([classes.index(row.label) for row in rows], np.int64)
    is_aside = split(labels, options.aside, seed)
    snapshot = snapshot_of(project, known)
    snapshot.write(registry.snapshots())
    section = encoder_of(project)
    plan = Plan(
        encoder=section.name,
        parent=parent.digest,
        weights=str(section.weights) if section.weights else None,
        classes=classes,
        snapshot=snapshot.digest,
        data=_digest(rows, labels, is_aside),
        seed=seed,
        threads=settings().worker_threads,
        options=options,
    )
    run = Run(settings().home / "fine-tuning" / plan.digest[:24], plan)
    with run.held():
        made = _made(plan, run)
        if made is not None:
            return made
        if not run.has_examples():
            known_images = images_of(project, parent, [(row.item_id, row.content_hash) for row in rows])
            run.keep_examples(known_images, labels, is_aside)
        outcome = run.carry_out(tell, cancel)
        if outcome is None:
            return None
        kept = run.kept()
        trained = [rows[at] for at in kept if not is_aside[at]]
        return _publish(project_id, actor, plan, outcome, run, trained, len(rows) - len(kept))


def use(session: Session, project: Project, found: FineTuned) -> None:
    """Name the new encoder in the project's configuration: it changes over beside its rounds, as `changes` has it."""
    assert found.spec is not None
    precision = project.settings.encoder.precision
    precision = "auto" if precision == "int8" else precision  # that one is of other weights
    encoder = EncoderSection.model_validate(
        {"name": found.plan.encoder, "weights": found.weights, "precision": precision}
    )
    configured.replace(session, project, project.settings.model_copy(update={"encoder": encoder}))


def _check(parent: EncoderSpec, rows: Sequence[Labelled]) -> None:
    if parent.kind != "image":
        raise NotFineTunable(problem=f"{parent.name} encodes texts", mend="Only encoders of images are trained.")
    if len(rows) < FEWEST or len({row.label for row in rows}) < 2:
        problem = f"{len(rows)} of {len({row.label for row in rows})} classes"
        raise NotFineTunable(problem=problem, mend=f"Label more first: {FEWEST} and two classes are the least.")


def _made(plan: Plan, run: Run) -> FineTuned | None:
    """What this plan's run made before, if it came to an end."""
    made = run.folder / _MADE
    if not made.exists():
        return None
    spec = encoders.load(_encoders(), made.read_text())
    facts = recorded(spec.path.parent)
    if facts is None or facts["run"] != plan.digest:
        return None
    return FineTuned(spec, spec.path.with_name(WEIGHTS), plan, Outcome.from_json(facts["outcome"]), facts["skipped"])


def _publish(
    project_id: int, actor: str, plan: Plan, outcome: Outcome, run: Run, trained: Sequence[Labelled], skipped: int
) -> FineTuned:
    """Export the trained network; its weights and its record stay beside it. The last write says that all is there."""
    if not outcome.best_epoch:
        return FineTuned(None, None, plan, outcome, skipped)
    with reading() as session:
        precision = open_embeddings(session.get_one(Project, project_id)).spec.precision
    spec = encoders.export(plan.encoder, run.weights, _encoders(), None if precision == "int8" else precision)
    folder = spec.path.parent
    with whole(folder / WEIGHTS) as file, run.weights.open("rb") as made:
        shutil.copyfileobj(made, file)
    facts = {"skipped": skipped, "made": now().isoformat(), "by": actor, **provenance()}
    record(folder, plan, outcome, facts, [row.content_hash for row in trained])
    with transaction() as session:
        before, after = outcome.history[0], outcome.history[outcome.best_epoch]
        hand.note(session, project_id, actor, "fine-tune", f"{spec.digest}: {before} before, {after} after")
    with whole(run.folder / _MADE) as file:
        file.write(spec.digest.encode())
    run.clear()
    log.info("fine_tune.done", project=project_id, encoder=spec.digest, labels=len(trained), seconds=outcome.seconds)
    return FineTuned(spec, folder / WEIGHTS, plan, outcome, skipped)


def _encoders() -> Path:
    return settings().home / "encoders"


def _digest(rows: Sequence[Labelled], labels: NDArray[np.int64], is_aside: NDArray[np.bool_]) -> str:
    digest = hashlib.sha256()
    for row, label, aside in zip(rows, labels, is_aside, strict=True):
        digest.update(f"{row.content_hash} {label} {int(aside)}\n".encode())
    return digest.hexdigest()

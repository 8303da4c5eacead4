"""Learn from the labels so far: snapshot, fit, evaluate, and promote unless it got worse.

What the labels are, `learning.targets` knows.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from numpy.typing import NDArray

from backend.database import ModelVersion, Project, ProjectSettings, Round, reading, transaction
from backend.learning import evaluate, registry, training
from backend.learning.candidates import Unlabelled
from backend.learning.finetune_plan import trained_on
from backend.learning.heads import Head
from backend.learning.loans import save_loan
from backend.learning.snapshots import Row, Snapshot
from backend.learning.targets import Measured, Target, target_of
from backend.pool.catalog import Labelled, candidates, labelled
from backend.rounds.advice import keep_advice
from backend.rounds.changes import awaits
from backend.rounds.choose import round_seed
from backend.rounds.comparison import FEWEST_TO_COMPARE
from backend.rounds.encoding import Embeddings, open_embeddings
from backend.rounds.graph import NODES, as_keys, open_graph, reader
from backend.rounds.validate import validate
from backend.studio.labels import LabelTask, config_hash

_GROWN = 1.5  # a query fits anew, without new labels, where the pool around them has grown so much


def learn(project_id: int, number: int) -> dict[str, Any]:
    """Fit a head on what people labelled; labels that are all alike are nothing to fit yet.

    Raises LabelsRefused where a check of the labels says that training on them would harm, HeadNotForTask.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        round_ = session.scalars(sa.select(Round).where(Round.project_id == project_id, Round.number == number)).one()
        made = session.scalar(sa.select(ModelVersion).where(ModelVersion.round_id == round_.id))
        if made is not None:
            return _report(made)
        question = LabelTask.parse(project.label_config).question
        known = labelled(session, project_id, question)
        pool = candidates(session, project_id, needs_task=False)
        parent = registry.champion(session, project_id)
    embeddings = open_embeddings(project)
    validate(project, round_, parent, embeddings)
    target = target_of(question)
    target.check(project.settings.head)
    known = [row for row in known if question.knows(row.label)]
    train = [row for row in known if not row.is_holdout]
    holdout = [row for row in known if row.is_holdout]
    if not target.is_enough([row.label for row in train]):
        return {"labels": len(train), "holdout": len(holdout), "version": None}
    snapshot = snapshot_of(project, known)
    if round_.query and (equal := _learned(project, snapshot, embeddings, len(pool.hashes) + len(train))) is not None:
        return _report(equal)

    seed = round_seed(project.settings.seed, number)
    x, y = _arrays(embeddings, train, target)
    is_helped = target.is_helped and project.settings.head.kind != "mlp"
    lent = _pool(project_id, embeddings, pool.hashes, train, seed) if is_helped else None
    known_to_encoder = familiar(embeddings.digest, [row.content_hash for row in train])
    chosen = project.settings.head
    tuning = target.tuned(x, y, chosen, seed, known_to_encoder)
    fit = target.fit(
        x, y, lent, seed=seed, balanced=chosen.balanced, kind=chosen.kind, familiar=known_to_encoder,
        tuned=training.UNTUNED if tuning is None else tuning.tuned,
    )  # fmt: skip
    before = registry.load_head(parent) if parent is not None and parent.encoder_digest == embeddings.digest else None
    measured, is_worse = _evaluate(embeddings, fit, train, holdout, target, before, parent)
    snapshot.write(registry.snapshots())
    origin = registry.Lineage(
        encoder_digest=embeddings.digest,
        snapshot=snapshot.digest,
        seed=seed,
        metrics=_metrics(measured),
        lineage={
            "method": fit.method,
            "head_kind": chosen.kind,
            "balanced": chosen.balanced,
            **({} if tuning is None else {"tuning": tuning.as_json()}),
            "hidden": 0 if fit.head.hidden_bias is None else len(fit.head.hidden_bias),
            "parameters": fit.head.parameters,
            "penalty": fit.penalty,
            "chosen_by": fit.chosen_by,
            "is_calibrated": fit.calibrated,
            "temperature": fit.head.temperature,
            "threads": torch.get_num_threads(),
            "label_config": snapshot.label_config_hash,
            "labels": len(train),
            "holdout": len(holdout),
            **target.record(),
            "class_counts": dict(Counter(name for row in train for name in question.names(row.label))),
            "graph_nodes": fit.graph_nodes,
            "neighbours": fit.neighbours,
            "familiar": int(known_to_encoder.sum()),
            **({"loan": save_loan(lent, registry.loans())} if lent is not None and fit.graph_nodes else {}),
            "seconds": round(fit.seconds, 3),
        },
    )
    with transaction() as session:
        version = registry.record(session, project_id, round_.id, fit.head, origin)
        if is_worse:
            registry.refuse(session, version, f"round {number}")
        elif parent is None or not awaits(session, project_id, parent):
            registry.promote(session, version, f"round {number}")
        report = _report(version)
    keep_advice(project, version)
    return report


def _learned(project: Project, snapshot: Snapshot, embeddings: Embeddings, items: int) -> ModelVersion | None:
    """The version that these labels made already under this configuration, which another fit would equal.

    None where it learned from a much smaller pool.
    """
    with reading() as session:
        configured = sa.select(sa.func.max(ProjectSettings.created_at)).where(ProjectSettings.project_id == project.id)
        same = (ModelVersion.snapshot == snapshot.digest, ModelVersion.encoder_digest == embeddings.digest)
        mine = sa.select(ModelVersion).where(ModelVersion.project_id == project.id, ModelVersion.state != "deleted")
        found = session.scalar(mine.where(*same).order_by(ModelVersion.number.desc()).limit(1))
        if found is not None and found.created_at < (session.scalar(configured) or found.created_at):
            return None
    nodes = 0 if found is None else int(found.lineage.get("graph_nodes", 0))
    return None if nodes and min(items, NODES) > _GROWN * nodes else found


def familiar(encoder_digest: str, hashes: Sequence[str]) -> NDArray[np.bool_]:
    """Which of these contents (l,) the encoder was fine-tuned on, so that no head is judged by them."""
    seen = trained_on(registry.encoder_path(encoder_digest).parent)
    return np.array([hash_ in seen for hash_ in hashes], dtype=bool)


def _pool(
    project_id: int, embeddings: Embeddings, hashes: Sequence[str], train: Sequence[Labelled], seed: int
) -> Unlabelled | None:
    """The neighbour graph around the labelled items, while they are few enough for it to help."""
    if len(train) > training.PROPAGATION_LABELS or not hashes:
        return None
    labels = as_keys(row.content_hash for row in train)
    graph = open_graph(project_id, embeddings, np.union1d(as_keys(hashes), labels), labels)
    return Unlabelled.draw(graph, labels, reader(embeddings), seed, is_whole=len(hashes) <= NODES)


def _arrays(embeddings: Embeddings, rows: Sequence[Labelled], target: Target) -> tuple[NDArray[Any], NDArray[Any]]:
    """Embeddings (n, d) of labelled items, and what a head is to say of them."""
    return embeddings.gather([row.content_hash for row in rows]), target.encode([row.label for row in rows])


def _evaluate(
    embeddings: Embeddings,
    fit: training.FitReport,
    train: Sequence[Labelled],
    holdout: Sequence[Labelled],
    target: Target,
    before: Head | None,
    parent: ModelVersion | None,
) -> tuple[Measured | None, bool]:
    """Measure the new head, and say whether it is worse than the one before on labels that neither was fitted to."""
    is_like = before is not None and before.task == fit.head.task and before.classes == fit.head.classes
    if evaluate.choose_labels(len(holdout)) == "holdout":
        x, y = _arrays(embeddings, holdout, target)
        new = fit.head.predict(x)
        is_worse = before is not None and is_like and target.is_worse((fit.head, before), (new, before.predict(x)), y)
        return target.evaluate(fit.head, new, y, "holdout"), is_worse
    if fit.out_of_fold is None:
        return None, False
    x, y = _arrays(embeddings, train, target)
    rows, new = fit.out_of_fold.rows, fit.out_of_fold.probabilities
    measured = target.evaluate(fit.head, new, y[rows], "cross-validation")
    if before is None or parent is None or not is_like:
        return measured, False
    seen = {row.item_id for row in Snapshot.read(registry.snapshot_path(parent.snapshot)).rows}
    unseen = np.array([str(train[row].item_id) not in seen for row in rows], dtype=bool)
    if unseen.sum() < FEWEST_TO_COMPARE:
        return measured, False
    said = (new[unseen], before.predict(x[rows[unseen]]))
    return measured, target.is_worse((fit.head, before), said, y[rows[unseen]])


def _metrics(measured: Measured | None) -> dict[str, Any]:
    """The evaluation as JSON; empty where there were too few labels to measure anything."""
    return {} if measured is None else json.loads(measured.to_json())


def snapshot_of(project: Project, known: Sequence[Labelled]) -> Snapshot:
    """These labels, a row an annotation, by name and split."""
    return Snapshot.of(
        config_hash(project.label_config),
        task=LabelTask.parse(project.label_config).task,
        rows=(
            Row(
                item_id=str(row.item_id),
                annotation_id=str(annotation_id),
                content_hash=row.content_hash,
                label=row.label,
                annotator=annotator,
                split="holdout" if row.is_holdout else "train",
            )
            for row in known
            for annotation_id, annotator in row.annotations.items()
        ),
    )


def _report(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version.name,
        "is_promoted": version.state == "champion",
        "labels": version.lineage["labels"],
        "holdout": version.lineage["holdout"],
        "accuracy": version.metrics.get("accuracy"),
    }

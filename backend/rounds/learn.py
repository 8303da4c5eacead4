"""Learn from the labels so far: snapshot, fit, evaluate, and promote unless it got worse."""

from collections import Counter
from typing import Any

import numpy as np
import sqlalchemy as sa

from backend.database import ModelVersion, Project, Round, reading, transaction
from backend.learning import registry, training
from backend.pool.catalog import candidates, labelled
from backend.rounds.choose import round_seed
from backend.rounds.encoding import open_embeddings
from backend.studio.labels import LabelTask

ENOUGH_HOLDOUT = 100  # labels in the holdout below which cross-validation decides about promotion
GRAPH_ITEMS = 20_000  # pool items in the neighbour graph; beyond this a random subset, keyed by the seed


def learn(project_id: int, number: int) -> dict[str, Any]:
    """Fit a head on what people labelled; with labels of fewer than two classes there is nothing to fit yet."""
    with reading() as session:
        project = session.get_one(Project, project_id)
        round_ = session.scalars(sa.select(Round).where(Round.project_id == project_id, Round.number == number)).one()
        made = session.scalar(sa.select(ModelVersion).where(ModelVersion.round_id == round_.id))
        if made is not None:
            return _report(made)
        known = labelled(session, project_id)
        pool = candidates(session, project_id, needs_task=False)
        parent = registry.champion(session, project_id)
    classes = LabelTask.parse(project.label_config).choices
    known = [row for row in known if row.label in classes]
    train = [row for row in known if not row.is_holdout]
    holdout = [row for row in known if row.is_holdout]
    if len({row.label for row in train}) < 2:
        return {"labels": len(train), "holdout": len(holdout), "version": None}

    embeddings = open_embeddings(project.settings)
    seed = round_seed(project.settings.seed, number)
    graph = pool.hashes
    if len(graph) > GRAPH_ITEMS:
        rows = np.random.default_rng(seed).choice(len(graph), GRAPH_ITEMS, replace=False)
        graph = tuple(graph[row] for row in np.sort(rows))
    x, y = _arrays(embeddings, train, classes)
    fit = training.fit(x, y, classes, pool=embeddings.gather(graph), seed=seed)
    metrics = _evaluate(embeddings, fit, holdout, classes)
    snapshot = _snapshot(project, known)
    with transaction() as session:
        version = registry.record(
            session,
            project_id,
            round_.id,
            fit.head,
            registry.Lineage(
                encoder_digest=embeddings.digest,
                snapshot=snapshot,
                seed=seed,
                metrics=metrics,
                lineage={
                    "method": fit.method,
                    "labels": len(train),
                    "holdout": len(holdout),
                    "class_counts": dict(Counter(row.label for row in train)),
                    "graph_items": len(graph),
                    "seconds": round(fit.seconds, 3),
                },
            ),
        )
        if _may_replace(embeddings, version, fit, parent, holdout, classes):
            registry.promote(session, version)
        else:
            registry.refuse(session, version)
        return _report(version)

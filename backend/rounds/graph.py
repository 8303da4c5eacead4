"""The project's neighbour graph, kept on disk between rounds: a later round reads only what is new."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import structlog

from backend.database import Project, reading
from backend.errors import GraphUnreadable
from backend.learning.neighbours import Graph, Keys, Read, build, update
from backend.learning.training import PROPAGATION_LABELS
from backend.pool.catalog import candidates, labelled
from backend.rounds.encoding import Embeddings, open_embeddings
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from backend.studio.labels import LabelTask

log = structlog.get_logger()

NODES = 50_000  # a larger pool is represented by the items of the smallest content hashes: a uniform draw that stays


def as_keys(hashes: Iterable[str]) -> Keys:
    """Content hashes as the graph's keys, (n,) bytes, in the same order."""
    return np.array([content_hash.encode() for content_hash in hashes], dtype="S64")


def reader(store: Embeddings | VectorStore) -> Read:
    """Embeddings by the graph's keys."""
    return lambda keys: store.gather([key.decode() for key in keys])


def refresh(project_id: int, embeddings: Embeddings | None = None) -> None:
    """Bring the graph up to date with what is encoded, while nobody waits for a batch.

    By default that of the encoder in use; `embeddings` of another one need not be complete.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        pool = candidates(session, project_id, needs_task=False)
        asked = LabelTask.parse(project.label_config).question
        known = [row for row in labelled(session, project_id, asked) if not row.is_holdout]
    if len(known) <= PROPAGATION_LABELS and len(pool.hashes):
        labels, everything = as_keys(row.content_hash for row in known), as_keys(pool.hashes)
        if embeddings is not None:
            store = embeddings.store
            labels, everything = (
                keys[store.locate([key.decode() for key in keys]) >= 0] for keys in (labels, everything)
            )
        open_graph(project_id, embeddings or open_embeddings(project), np.union1d(everything, labels), labels)


def open_graph(project_id: int, embeddings: Embeddings, everything: Keys, labelled: Keys) -> Graph:
    """The graph of at most `NODES` of all items without the holdout, and of the labelled ones."""
    keys = np.union1d(np.unique(everything)[:NODES], labelled)
    path = settings().home / "graphs" / f"{project_id}-{embeddings.digest[:16]}.safetensors"
    before = _known(path)
    graph = build(keys, reader(embeddings)) if before is None else update(before, keys, reader(embeddings))
    if graph is not before:
        graph.save(path)
    return graph


def _known(path: Path) -> Graph | None:
    try:
        return Graph.load(path) if path.exists() else None
    except GraphUnreadable as error:
        log.warning("graph.unreadable", problem=str(error))
        return None

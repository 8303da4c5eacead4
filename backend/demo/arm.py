"""The random arm: the accuracy that the same number of labels would have bought, had they been drawn at random."""

from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Item, Project, reading
from backend.learning import training
from backend.learning.candidates import Unlabelled
from backend.learning.neighbours import build
from backend.rounds.encoding import open_embeddings
from backend.rounds.graph import as_keys, reader

SEEDS = 5


class RandomArm:
    """Same embeddings, same kind of head, same holdout; only the labelled items are drawn uniformly."""

    def __init__(self, project_id: int, truth: Mapping[str, str], classes: Sequence[str], seed: int) -> None:
        with reading() as session:
            project = session.get_one(Project, project_id)
            items = session.execute(
                sa.select(Item.key, Item.content_hash, Item.is_holdout)
                .where(Item.project_id == project_id, Item.state == "encoded")
                .order_by(Item.id)
            ).all()
        embeddings = open_embeddings(project)
        place = {name: number for number, name in enumerate(classes)}
        pool = [row for row in items if not row.is_holdout]
        holdout = [row for row in items if row.is_holdout]
        self._classes = tuple(classes)
        self._keys = as_keys(row.content_hash or "" for row in pool)
        self._read = reader(embeddings)
        self._graph = build(self._keys, self._read)
        self._labels = np.array([place[truth[row.key]] for row in pool])
        self._holdout = embeddings.gather([row.content_hash or "" for row in holdout])
        self._holdout_labels = np.array([place[truth[row.key]] for row in holdout])
        self._orders = [np.random.default_rng((seed, arm)).permutation(len(pool)) for arm in range(SEEDS)]

    def accuracies(self, labels: int) -> tuple[float, ...]:
        """Holdout accuracy of each seed's head after `labels` random labels; a seed's draws are nested."""
        return tuple(self._accuracy(order[:labels], arm) for arm, order in enumerate(self._orders))

    def _accuracy(self, labelled: NDArray[np.int64], arm: int) -> float:
        keys = self._keys[labelled]
        pool = Unlabelled.draw(self._graph, keys, self._read, arm)
        fit = training.fit(self._read(keys), self._labels[labelled], self._classes, pool=pool, seed=arm)
        predicted = fit.head.predict(self._holdout).argmax(axis=1)
        return float((predicted == self._holdout_labels).mean())

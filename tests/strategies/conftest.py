"""Pools to pick from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from strategies import Request, Task

CLASSES = 5


def multi_label(request: Request) -> Request:
    """The same candidates where an item may have several of the classes: each with a probability of its own."""
    chances = np.random.default_rng(11).random((len(request.ids), CLASSES)).astype(np.float32) ** 2
    classes = None if request.labelled_classes is None else np.zeros_like(request.labelled_classes)
    return replace(request, task=Task.MULTI_LABEL, probabilities=chances, labelled_classes=classes)


@pytest.fixture
def pool() -> Callable[..., Request]:
    """Make a request: `n` candidates in blobs, sorted ids, a model's probabilities, and `labels` labelled items."""

    def make(n: int = 300, *, labels: int = 12, dimensions: int = 16, data_seed: int = 0, **changes: Any) -> Request:
        rng = np.random.default_rng(data_seed)
        blobs = rng.normal(size=(12, dimensions)) * 2

        def embeddings(count: int) -> np.ndarray[Any, Any]:
            points = blobs[rng.integers(0, len(blobs), count)] + rng.normal(size=(count, dimensions))
            return points.astype(np.float16)

        fields: dict[str, Any] = {
            "ids": np.array([f"item-{i:05d}" for i in range(n)], dtype="U10"),
            "budget": 10,
            "seed": 7,
            "classes": CLASSES,
            "probabilities": rng.dirichlet(np.ones(CLASSES), n).astype(np.float32),
            "logits": rng.normal(size=(n, CLASSES)).astype(np.float32),
            "embeddings": embeddings(n),
            "samples": rng.dirichlet(np.ones(CLASSES), (3, n)).astype(np.float32),
            "labelled_embeddings": embeddings(labels),
            "labelled_classes": rng.integers(0, CLASSES, labels),
            "head_weights": rng.normal(size=(dimensions, CLASSES)).astype(np.float32),
            "head_bias": rng.normal(size=CLASSES).astype(np.float32),
            "costs": rng.uniform(0.5, 4.0, n).astype(np.float32),
            "groups": rng.integers(0, 4, n),
            "targets": embeddings(4),
            "votes": np.full((n, 3), -1),
            "deviations": np.random.default_rng(data_seed + 1).uniform(0.1, 3.0, n).astype(np.float32),
        }
        votes, truth = fields["votes"], fields["probabilities"].argmax(axis=1)
        for annotator in range(3):  # each has seen two items in five and is right about four in five
            seen = rng.random(n) < 0.4
            said = np.where(rng.random(n) < 0.8, truth, rng.integers(0, CLASSES, n))
            votes[seen, annotator] = said[seen]
        return Request(**{**fields, **changes})

    return make

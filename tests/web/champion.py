"""A champion as a round leaves it behind: a head's file, an encoder's vectors, encoded items, a promoted version."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.database import Item, ModelVersion, Project, Round, transaction
from backend.learning.heads import Head
from backend.learning.registry import head_path
from backend.pool.catalog import item_key
from backend.scoring.vectors import VectorStore
from backend.settings import settings

DIMS = 16


@dataclass(frozen=True)
class Champion:
    """`uris` and `task_ids` of the encoded items, with their `vectors` (n, d) float16, in the same order."""

    head: Head
    encoder_digest: str
    uris: list[str]
    task_ids: list[int]
    vectors: NDArray[np.float16]

    def expected(self, place: int) -> tuple[str, float]:
        """The most probable label of an item and its probability, from the definition."""
        x = (self.vectors[place].astype(np.float64) - self.head.mean) / self.head.scale
        logits = (x @ self.head.weights.astype(np.float64) + self.head.bias) / self.head.temperature
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return self.head.classes[int(probabilities.argmax())], float(probabilities.max())


def crown(
    project: Project,
    items: int = 8,
    classes: tuple[str, ...] = ("cat", "dog"),
    number: int = 1,
    dims: int = DIMS,
    encoder_digest: str | None = None,
) -> Champion:
    """Give the project a champion and `items` encoded items with tasks, by default of an encoder that is not there."""
    random = np.random.default_rng(project.id * 1_000 + number)
    head = Head(
        classes,
        mean=random.normal(size=dims).astype(np.float32),
        scale=random.uniform(0.5, 2, dims).astype(np.float32),
        weights=random.normal(size=(dims, len(classes))).astype(np.float32),
        bias=random.normal(size=len(classes)).astype(np.float32),
        temperature=1.5,
    )
    head.save(head_path(head.digest))
    uris = [f"https://example.org/{project.name}/{number}/{place}.jpg" for place in range(items)]
    hashes = [hashlib.sha256(uri.encode()).hexdigest() for uri in uris]
    task_ids = [project.id * 100_000 + number * 10_000 + place for place in range(items)]
    vectors = random.normal(size=(items, dims)).astype(np.float16)
    encoder_digest = encoder_digest or hashlib.sha256(f"encoder of {project.name}".encode()).hexdigest()
    store = VectorStore(settings().home / "vectors", encoder_digest, dims)
    store.put(hashes, vectors)
    store.close()
    with transaction() as session:
        round_ = Round(project_id=project.id, number=number, workflow_id=f"done:{project.id}:{number}", state="done")
        session.add(round_)
        session.flush()
        version = ModelVersion(
            project_id=project.id,
            round_id=round_.id,
            number=number,
            encoder_digest=encoder_digest,
            head_digest=head.digest,
            snapshot="",
            seed=0,
            metrics={},
            lineage={"penalty": 1e-4},
            state="champion",
        )
        session.add(version)
        for uri, hash_, task_id in zip(uris, hashes, task_ids, strict=True):
            item = Item(project_id=project.id, key=item_key(uri), uri=uri, task_id=task_id)
            item.state, item.content_hash = "encoded", hash_
            session.add(item)
    return Champion(head, encoder_digest, uris, task_ids, vectors)

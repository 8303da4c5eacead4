"""A project that learns without Label Studio: items with embeddings of known clusters, and people's labels."""

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import (
    Alert,
    Annotation,
    Batch,
    Item,
    ModelVersion,
    Pick,
    Project,
    Round,
    now,
    reading,
    transaction,
)
from backend.learning.encoders import EncoderSpec
from backend.pool.catalog import item_key
from backend.rounds import learn
from backend.rounds.encoding import Embeddings
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from backend.studio.labels import image_config

DIMS = 24
CLASSES = ("cat", "dog")


@dataclass
class Played:
    """A project whose items lie in two clusters; `truth` is each item's cluster, in the order of `items`."""

    project_id: int
    store: VectorStore
    items: list[int] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)
    annotations: int = 0
    rounds: int = 0

    def add(
        self, vectors: NDArray[Any], truth: list[int], contents: list[str] | None = None, uris: list[str] | None = None
    ) -> list[int]:
        """Encoded items; `contents` are their contents' names, by default all different."""
        first = len(self.items)
        uris = uris or [f"https://example.org/{first + place}.jpg" for place in range(len(truth))]
        hashes = [hashlib.sha256(name.encode()).hexdigest() for name in contents or uris]
        self.store.put(hashes, vectors)
        with transaction() as session:
            for place, (uri, hash_) in enumerate(zip(uris, hashes, strict=True), start=first):
                item = Item(project_id=self.project_id, key=item_key(uri), uri=uri, task_id=place + 1)
                item.state, item.content_hash = "encoded", hash_
                session.add(item)
                session.flush()
                self.items.append(item.id)
        self.truth += truth
        return self.items[first:]

    def label(self, places: range, names: list[str] | None = None, annotator: str = "1", days_ago: float = 1) -> None:
        """People label these items, by default rightly."""
        day = now() - dt.timedelta(days=days_ago)
        with transaction() as session:
            for offset, place in enumerate(places):
                self.annotations += 1
                label = names[offset] if names else CLASSES[self.truth[place]]
                known = {"external_id": self.annotations, "label": label, "created_at": day, "updated_at": day}
                session.add(
                    Annotation(project_id=self.project_id, item_id=self.items[place], annotator=annotator, **known)
                )

    def hold_out(self, places: range) -> None:
        """These items were drawn at random, by a round of their own."""
        self.rounds += 1
        with transaction() as session:
            round_ = Round(project_id=self.project_id, number=self.rounds, workflow_id=f"r{self.rounds}", state="done")
            session.add(round_)
            session.flush()
            common = {"project_id": self.project_id, "strategy": "margin", "state": "replaced"}
            batch = Batch(round_id=round_.id, number=self.rounds, version=f"v0+b{self.rounds}", **common)
            session.add(batch)
            session.flush()
            for rank, place in enumerate(places):
                session.add(Pick(batch_id=batch.id, rank=rank, item_id=self.items[place], is_random_slice=True))
            mine = Item.id.in_([self.items[place] for place in places])
            session.execute(sa.update(Item).where(mine).values(is_holdout=True))

    def learn(self) -> dict[str, Any]:
        """The learning step of a new round; its report."""
        self.rounds += 1
        with transaction() as session:
            common = {"number": self.rounds, "workflow_id": f"r{self.rounds}", "state": "running"}
            session.add(Round(project_id=self.project_id, **common))
        return learn.learn(self.project_id, self.rounds)

    def version(self, name: str) -> ModelVersion:
        with reading() as session:
            wanted = ModelVersion.number == int(name.removeprefix("v"))
            return session.scalars(sa.select(ModelVersion).where(wanted)).one()

    def alerts(self) -> list[tuple[str, str]]:
        """(severity, code), oldest first."""
        with reading() as session:
            return [(one.severity, one.code) for one in session.scalars(sa.select(Alert).order_by(Alert.id))]

    def configure(self, labels: tuple[str, ...], **config: Any) -> None:
        with transaction() as session:
            project = session.get_one(Project, self.project_id)
            project.label_config = image_config(labels)
            project.config = {**project.config, **config}


def clusters(count: int, seed: int = 0, apart: float = 1.5) -> tuple[NDArray[np.float32], list[int]]:
    """Vectors (count, DIMS) around two centres in turn, and which."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(2, DIMS)) * apart
    truth = [place % 2 for place in range(count)]
    return (centres[truth] + random.normal(size=(count, DIMS)) * 1.5).astype(np.float32), truth


@pytest.fixture
def played(home: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """A project with 200 encoded items and no label."""
    prepare_database()
    with transaction() as session:
        project = Project(name="p", config={"name": "p"}, studio_project_id=1, label_config=image_config(CLASSES))
        session.add(project)
    digest = hashlib.sha256(b"an encoder").hexdigest()
    spec = EncoderSpec("efficientnet-lite0", digest, DIMS, 32, "fp32", "", home / "none")
    store = VectorStore(settings().home / "vectors", digest, DIMS)
    monkeypatch.setattr(learn, "open_embeddings", lambda _config: Embeddings(spec, store))
    made = Played(project.id, store)
    made.add(*clusters(200))
    return made

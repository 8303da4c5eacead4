"""Vectors stay while an item, a label or a model version refers to their content, and go afterwards."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.database import Annotation, EncoderChange, Item, ModelVersion, Project, Round, now, transaction
from backend.learning import registry
from backend.learning.encoders import EncoderSpec
from backend.learning.snapshots import Row, Snapshot
from backend.rounds import encoding
from backend.rounds.garbage import collect
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from backend.studio.labels import image_config
from tests.conftest import forget_process_state

KEPT = ("encoded", "gone_but_labelled", "a_version_learnt_it")
DEAD = ("gone", "of_nobody")


def content(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def store(home: Path, exact: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[VectorStore]:
    """All five contents and, beside it, a store of an encoder that nothing uses."""
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")
    encoding.embeddings_of.cache_clear()
    forget_process_state()
    (home / "encoders").symlink_to(exact.path.parent.parent)
    prepare_database()
    for digest in (exact.digest, "f" * 64):
        made = VectorStore(home / "vectors", digest, exact.dims)
        names = [content(name) for name in KEPT + DEAD]
        made.put(names, np.arange(len(names) * exact.dims).reshape(len(names), -1) / 1e4)
        made.close()
    describe(exact.digest)
    opened = VectorStore(home / "vectors", exact.digest, exact.dims)
    yield opened
    opened.close()
    encoding.embeddings_of.cache_clear()


def describe(digest: str) -> None:
    snapshot = Snapshot.of("c", [Row("9", "1", content("a_version_learnt_it"), "a", "ann", "train")])
    snapshot.write(registry.snapshots())
    with transaction() as session:
        session.add(Project(id=1, name="pool", config={"name": "pool"}, label_config=image_config(("a", "b"))))
        session.flush()
        for place, (name, state) in enumerate(
            [("encoded", "encoded"), ("gone_but_labelled", "gone"), ("gone", "gone")], start=1
        ):
            session.add(Item(id=place, project_id=1, key=name, uri=name, state=state, content_hash=content(name)))
        session.add(Round(id=1, project_id=1, number=1, workflow_id="w"))
        session.flush()
        session.add(Annotation(project_id=1, item_id=2, external_id=1, label="a", created_at=now(), updated_at=now()))
        session.add(
            ModelVersion(project_id=1, round_id=1, number=1, encoder_digest=digest, head_digest="h",
                         snapshot=snapshot.digest, seed=0, metrics={})
        )  # fmt: skip


def test_counting_removes_nothing_and_removing_only_what_nothing_refers_to(store: VectorStore) -> None:
    counted = list(collect(is_dry=True))
    before = len(store)
    removed = list(collect(is_dry=False))

    assert [(one.is_used, one.vectors, one.unwanted) for one in counted] == [(True, 5, 2), (False, 5, 5)]
    assert before == 5
    assert [(one.is_used, one.unwanted) for one in removed] == [(True, 2), (False, 5)]
    assert (store.locate([content(name) for name in KEPT]) >= 0).all()
    assert (store.locate([content(name) for name in DEAD]) < 0).all()
    assert [path.name for path in (settings().home / "vectors").iterdir()] == [store.digest]
    assert [one.unwanted for one in collect(is_dry=False)] == [0]


def test_the_command_says_what_it_would_do_and_does_it_with_yes(store: VectorStore) -> None:
    def command(*words: str) -> str:
        said = subprocess.run(
            [sys.executable, "-m", "backend.cli", "vectors", "gc", *words], capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr
        return said.stdout

    looked, done = command(), command("--yes")

    assert f"{store.digest[:12]}: 2 of 5 vectors unused" in looked
    assert "Nothing was removed. Repeat with --yes." in looked
    assert "ffffffffffff: 5 of 5 vectors removed, of an encoder that nothing uses" in done
    assert len(store) == 3


def test_an_encoder_that_comes_into_use_while_other_stores_are_cleaned_keeps_its_vectors(store: VectorStore) -> None:
    collecting = collect(is_dry=False)  # the stores in the order of their digests
    next(collecting)
    wanted = {"name": "efficientnet-lite0", "digest": "f" * 64}
    with transaction() as session:
        session.add(EncoderChange(project_id=1, encoder=wanted, actor="somebody", state="encoding"))

    (other,) = collecting

    assert (other.digest, other.vectors) == ("f" * 64, 5)
    assert (settings().home / "vectors" / other.digest / "index.db").exists()

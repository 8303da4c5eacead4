"""After a batch is out the model is looked at closely, through its encoder too; the card prints what was found."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image

from backend.database import Item, ModelAnalysis, reading, transaction
from backend.errors import EncoderDown
from backend.learning.analysis import Analysis
from backend.rounds import analyse, learn
from backend.settings import settings
from tests.monitoring.conftest import DIMS, Played, clusters
from tests.monitoring.test_commands import run


class Halves:
    """An encoder of images: how bright their left and right halves are, and a constant."""

    digest, dims, side = "", DIMS, 32
    calls = 0

    def encode(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        rows = np.ones((len(inputs), DIMS), np.float32)
        rows[:, 0] = inputs[:, :, :16].mean(axis=(1, 2, 3)) / 64 - 2
        rows[:, 1] = inputs[:, :, 16:].mean(axis=(1, 2, 3)) / 64 - 2
        return rows


@pytest.fixture
def looked(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(analyse, "open_embeddings", learn.open_embeddings)
    return played


def found(played: Played, name: str = "v1") -> Analysis:
    with reading() as session:
        return Analysis.read(session.get_one(ModelAnalysis, played.version(name).id).found)


def test_what_is_known_of_the_items_becomes_slices_and_the_card_shows_the_worst(looked: Played) -> None:
    looked.configure(("cat", "dog"), analysis={"sensitivity_items": 0})
    looked.hold_out(range(100, 200))
    looked.label(range(60))
    looked.label(range(100, 160))
    looked.label(range(160, 200), annotator="mallory", names=["dog", "cat"] * 20)  # the wrong way round
    with transaction() as session:
        for place in range(100, 200):
            camera = "old" if place < 150 else "new"
            data = {"camera": camera, "image": f"https://example.org/{place}.jpg"}
            session.execute(sa.update(Item).where(Item.id == looked.items[place]).values(data=data))
    looked.learn()

    report = analyse.analyse(looked.project_id, looked.rounds)

    slices = {(one.field, one.value): one for one in found(looked).slices}
    card = run("models", "show", "p", "v1")
    assert report == {"analysed": ["v1"]}
    assert slices["annotator", "mallory"].is_worse
    assert slices["annotator", "mallory"].accuracy < 0.3
    assert slices["camera", "new"].items == 50
    assert not slices["annotator", "1"].is_worse
    assert {field for field, _ in slices} == {"annotator", "camera", "labelled"}
    assert "annotator = mallory: accuracy" in card
    assert "a closer look, on 100 labels of the holdout" in card


def test_small_changes_of_the_images_go_through_the_encoder_once(
    looked: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(tmp_path))
    settings.cache_clear()
    encoder, random = Halves(), np.random.default_rng(0)
    monkeypatch.setattr(analyse, "open_encoder", lambda _section: encoder)
    truth = [place % 2 for place in range(60)]
    paths, images = [], random.integers(60, 80, (60, 32, 32, 3), dtype=np.uint8)
    for place, side in enumerate(truth):
        images[place, :, side * 16 : side * 16 + 16] += np.uint8(random.integers(60, 100))
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(images[place]).save(paths[-1])
    looked.add(encoder.encode(images), truth)
    with transaction() as session:
        for place, path in enumerate(paths, start=200):
            hash_ = hashlib.sha256(path.read_bytes()).hexdigest()
            looked.store.put([hash_], encoder.encode(images[place - 200][None]))
            known = {"uri": str(path), "content_hash": hash_}
            session.execute(sa.update(Item).where(Item.id == looked.items[place]).values(**known))
    looked.hold_out(range(220, 260))
    looked.label(range(200, 260))
    looked.learn()

    calls = encoder.calls
    analyse.analyse(looked.project_id, looked.rounds)
    first, spent = found(looked), encoder.calls - calls
    analyse.analyse(looked.project_id, looked.rounds)

    assert spent == 7  # 40 items in five ways, 32 at a time
    assert encoder.calls == calls + spent
    assert found(looked) == first
    assert [one.items for one in first.changes] == [40] * 5
    assert {one.name: one.kept for one in first.changes}["JPEG quality 30"] == 1.0


def test_an_encoder_that_is_away_costs_only_what_needs_it(looked: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: object) -> None:
        raise EncoderDown(url="localhost:1", problem="refused")

    monkeypatch.setattr(analyse, "_encode_changed", away)
    looked.hold_out(range(100, 140))
    looked.label(range(60))
    looked.label(range(100, 140))
    looked.learn()

    report = analyse.analyse(looked.project_id, looked.rounds)

    assert report == {"analysed": ["v1"]}
    assert found(looked).changes == ()


def test_too_few_labels_are_not_looked_at(looked: Played) -> None:
    looked.add(*clusters(4))
    looked.label(range(40))
    looked.learn()

    assert analyse.analyse(looked.project_id, looked.rounds) == {}
    assert "a closer look" not in run("models", "show", "p")

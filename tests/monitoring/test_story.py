"""Six rounds of a project on real images: each alarm, version, snapshot and refusal that should be, and no other.

On CIFAR-10 with the encoder where NEXTBATCH_DATA names it; on handwritten digits, 8 x 8 grey values, elsewhere.
"""

import datetime as dt
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from backend.database import (
    Annotation,
    Batch,
    ModelAdvice,
    ModelVersion,
    Pick,
    Project,
    Round,
    now,
    reading,
    transaction,
)
from backend.errors import LabelsRefused
from backend.learning import data, registry
from backend.learning.challenge import challenge as challenging
from backend.learning.encoders import EncoderSpec
from backend.learning.heads import Head
from backend.learning.snapshots import Snapshot
from backend.pool import folders
from backend.pool.decode import decode
from backend.rounds import analyse, choose, drift, learn, saving
from backend.rounds import round as rounds
from backend.rounds.encoding import Embeddings, embeddings_of, open_encoder
from backend.rounds.queue import prepare_database
from backend.rounds.rebuild import verify
from backend.scoring.vectors import VectorStore
from backend.settings import EncoderSection, settings
from backend.studio.labels import image_config
from tests.monitoring.conftest import Played
from tests.services.images import CACHE

pytestmark = pytest.mark.usefixtures("fp32")
POOL, NEW, BATCH = 900, 120, 100


@dataclass
class Story:
    """The project, its images, and what its alarms were so far."""

    played: Played
    classes: tuple[str, ...]
    folder: Path
    heard: int = 0
    asked: list[int] = field(default_factory=list)
    spare: tuple[list[Path], list[int]] = field(default_factory=lambda: ([], []))

    def encode(self, paths: list[Path]) -> NDArray[np.float32]:
        if os.environ.get("NEXTBATCH_DATA"):
            encoder = open_encoder(EncoderSection(name="efficientnet-lite0"))
            return encoder.encode(np.stack([decode(path.read_bytes(), encoder.side) for path in paths]))
        grey = [np.asarray(Image.open(path).convert("L").resize((8, 8), Image.Resampling.BOX)) for path in paths]
        return np.stack(grey).reshape(len(paths), 64).astype(np.float32) / 64

    def arrive(self, paths: list[Path], truth: list[int], *, is_changed: bool = False) -> None:
        """Images come into the pool; changed ones are negatives, out of focus."""
        copies = []
        for path in paths:
            copies.append(self.folder / f"{len(list(self.folder.iterdir())):05}.png")
            with Image.open(path) as image:
                plain = image.convert("RGB")
                (ImageOps.invert(plain).filter(ImageFilter.GaussianBlur(1)) if is_changed else plain).save(copies[-1])
        names = [path.name for path in copies]  # below the data root: samples are drawn by what names hash to
        self.played.add(self.encode(copies), truth, uris=names)

    def turn(self) -> dict[str, object]:
        """A round, all but what Label Studio is asked for."""
        self.played.rounds += 1
        project_id, number = self.played.project_id, self.played.rounds
        with transaction() as session:
            common = {"number": number, "workflow_id": f"r{number}", "state": "running"}
            session.add(Round(project_id=project_id, **common))
        report = learn.learn(project_id, number) | choose.choose(project_id, number)
        with transaction() as session:
            mine = sa.update(Batch).where(Batch.project_id == project_id)
            session.execute(mine.where(Batch.state == "published").values(state="replaced"))
            session.execute(mine.where(Batch.state == "selected").values(state="published"))
        return report | rounds.look_closely(project_id, number)

    def people_label(self, annotator: str = "ann") -> None:
        """Somebody labels the batch, rightly."""
        with reading() as session:
            newest = sa.select(Batch.id).order_by(Batch.id.desc()).limit(1).scalar_subquery()
            items = session.scalars(sa.select(Pick.item_id).where(Pick.batch_id == newest).order_by(Pick.rank)).all()
        for item_id in items:
            self.say(item_id, self.classes[self.truth(item_id)], annotator)
        self.asked = list(items)

    def say(self, item_id: int, label: str, annotator: str) -> None:
        self.played.annotations += 1
        at = now() + dt.timedelta(milliseconds=self.played.annotations)
        known = {"external_id": self.played.annotations, "created_at": at, "updated_at": at, "lead_time_s": 3.0}
        with transaction() as session:
            common = {"project_id": self.played.project_id, "item_id": item_id}
            session.add(Annotation(label=label, annotator=annotator, **common, **known))

    def truth(self, item_id: int) -> int:
        return self.played.truth[self.played.items.index(item_id)]

    def alarms(self) -> set[str]:
        """Codes of the alerts since the last look."""
        codes = [code for _, code in self.played.alerts()]
        fresh, self.heard = codes[self.heard :], len(codes)
        return set(fresh)

    def champion(self) -> ModelVersion:
        with reading() as session:
            found = registry.champion(session, self.played.project_id)
        assert found is not None
        return found


@pytest.fixture
def story(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    given = os.environ.get("NEXTBATCH_DATA")
    images = folders.open_dataset(Path(given), CACHE) if given else folders.digits(CACHE)
    folder = tmp_path / "pool"
    folder.mkdir()
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(folder))
    settings.cache_clear()
    prepare_database()
    config = {
        "name": "p",
        "batch": {"size": BATCH, "holdout_share": 0.4, "first_holdout": 50},
        "strategy": {"name": "margin"},
        "analysis": {"sensitivity_items": 0},
        "challenger": {"decide": "rule", "labels": 100},
    }
    with transaction() as session:
        project = Project(name="p", config=config, studio_project_id=1, label_config=image_config(images.classes))
        session.add(project)
    if given:
        embeddings = embeddings_of(EncoderSection(name="efficientnet-lite0"))
    else:
        spec = EncoderSpec("efficientnet-lite0", "d" * 64, 64, 32, "fp32", "", home / "none")
        embeddings = Embeddings(spec, VectorStore(settings().home / "vectors", spec.digest, 64))
    for module in (learn, choose, drift, analyse, saving):
        monkeypatch.setattr(module, "open_embeddings", lambda _project: embeddings)
    made = Story(Played(project.id, embeddings.store), images.classes, folder)
    order = np.random.default_rng(0).permutation(len(images.train.paths))[: POOL + NEW]
    paths, truth = [images.train.paths[at] for at in order], [images.train.labels[at] for at in order]
    made.arrive(paths[:POOL], truth[:POOL])
    made.spare = (paths[POOL:], truth[POOL:])
    return made


def test_six_rounds(story: Story) -> None:
    played, classes = story.played, story.classes

    # 1 and 2: labels come, a model is made of them, nothing is wrong.
    assert story.turn()["version"] is None
    story.people_label()
    second = story.turn()
    assert (second["version"], second["is_promoted"], second["analysed"]) == ("v1", True, ["v1"])
    assert story.alarms() == set()
    story.people_label()

    # 3: every label gets another name. The round is refused, v1 goes on; then they are mended, and one is new.
    played.configure(tuple(f"{name}!" for name in classes))
    with pytest.raises(LabelsRefused, match="labels_orphaned"):
        story.turn()
    assert story.alarms() == {"labels_orphaned", "labels_renamed"}
    assert story.champion().name == "v1"
    played.configure((*classes, "none of them"))
    assert story.turn()["version"] == "v2"
    assert story.alarms() == {"labels_added"}
    story.people_label()

    # 4: another kind of image arrives.
    story.arrive(*story.spare, is_changed=True)
    fourth = story.turn()
    assert fourth["version"] == "v3"
    heard = story.alarms()
    assert "embeddings_drifted" in heard
    assert heard <= {
        "embeddings_drifted", "predictions_drifted", "sharpness_drifted", "brightness_drifted", "bytes_drifted"
    }  # fmt: skip

    # 5: somebody else labels what was labelled, at random. People hear of it, and take the labels back.
    random = np.random.default_rng(5)
    for item_id in story.asked:
        story.say(item_id, classes[random.integers(len(classes))], "mallory")
    story.people_label()
    fifth = story.turn()
    assert story.alarms() == {"annotators_disagree", "items_disputed"}
    with transaction() as session:
        theirs = sa.update(Annotation).where(Annotation.annotator == "mallory")
        session.execute(theirs.values(deleted_at=now()))
    story.people_label()

    # 6: a challenger whose classes are turned about loses.
    head = registry.load_head(story.champion())
    turned = np.roll(np.arange(len(head.classes)), 1)
    wrong = Head(head.classes, head.mean, head.scale, head.weights[:, turned], head.bias[turned], head.temperature)
    rival = add_version(story, wrong)
    sixth = story.turn()
    assert (sixth["challenger"], sixth["challenger_is"]) == (rival.name, "worse")
    assert story.alarms() == {"challenger_worse"}
    assert played.version(rival.name).state == "candidate"

    # Meanwhile the random slice has grown enough to say what labels drawn at random would have done.
    told = [advice_of(played.version(str(one["version"])))[1] for one in (second, sixth)]
    assert told[0] == "not enough to tell: 50 of 200 labels of the random slice"
    assert told[1].startswith(f"{played.version('v6').lineage['labels']} were given; drawn at random about ")

    check_books(story, [second, fourth, fifth, sixth])


def advice_of(version: ModelVersion) -> list[str]:
    """What the curve said with this version, in words: of stopping, and of labels saved."""
    with reading() as session:
        return [one["says"] for one in session.get_one(ModelAdvice, version.id).signals]


def add_version(story: Story, head: Head) -> ModelVersion:
    """A version made by hand, which challenges."""
    champion, played = story.champion(), story.played
    played.rounds += 1
    with transaction() as session:
        common = {"number": played.rounds, "workflow_id": f"r{played.rounds}", "state": "done"}
        session.add(round_ := Round(project_id=played.project_id, **common))
        session.flush()
        origin = registry.Lineage(champion.encoder_digest, champion.snapshot, 1, {}, {"penalty": 1.0})
        made = registry.record(session, played.project_id, round_.id, head, origin)
        challenging(session, made, "ann")
        return made


def check_books(story: Story, reports: list[dict[str, object]]) -> None:
    """From a served prediction back to annotations, snapshot, code and seed; and the head made again from that."""
    champion = story.champion()
    with reading() as session:
        pick = session.scalars(sa.select(Pick).where(Pick.model == champion.name).limit(1)).one()
        served = registry.find(session, story.played.project_id, pick.model)
        snapshot = Snapshot.read(registry.snapshot_path(served.snapshot), served.snapshot)
        first = snapshot.rows[0].annotation_id
        seen = [version.name for version, _ in data.saw(session, story.played.project_id, first)]
        versions = registry.versions(session, story.played.project_id)
    assert served.name in seen
    assert served.lineage["code"]
    assert verify(served).answer == "equal"
    assert [one["version"] for one in reports] == ["v1", "v3", "v4", "v6"]
    assert len({version.snapshot for version in versions}) == len(versions) - 1  # the challenger's is its parent's
    assert {version.state for version in versions} <= {"champion", "retired", "refused", "candidate"}
    assert sum(version.state == "champion" for version in versions) == 1

"""From a project's labels to an encoder that it can use, through the child process and the command."""

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from typer.testing import CliRunner

from backend.cli import app
from backend.database import Annotation, Deed, Item, ModelVersion, Project, Round, now, reading, transaction
from backend.errors import FineTuneFailed, FineTuneRunning, NotFineTunable
from backend.learning import finetune_plan, finetune_run
from backend.learning.architectures import ARCHITECTURES
from backend.learning.card import card
from backend.learning.encoders import EncoderSpec
from backend.learning.finetune import Examples
from backend.learning.finetune import fine_tune as train
from backend.learning.finetune_run import Run
from backend.pool.catalog import item_key
from backend.pool.decode import decode
from backend.pool.folders import digits
from backend.rounds import changes, encoding, learn
from backend.rounds.fine_tune import fine_tune
from backend.rounds.queue import prepare_database
from backend.rounds.rebuild import verify
from backend.settings import settings
from backend.studio.labels import image_config
from tests.conftest import forget_process_state
from tests.services import small_encoder
from tests.services.images import CACHE

OPTIONS = {"stage": "all", "epochs": 5, "minibatch": 16, "augment": "none", "learning_rate": 0.0005, "aside": 0.3}
LABELLED, HOLDOUT = 52, 4
NAMES = ("3", "8")


@pytest.fixture
def project_id(home: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Threes and eights among the digits; two more are labelled and cannot be read."""
    data = digits(CACHE)
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(data.root))
    monkeypatch.setenv("NEXTBATCH_WORKER_THREADS", str(torch.get_num_threads()))
    forget_process_state()
    monkeypatch.setitem(ARCHITECTURES, small_encoder.NAME, small_encoder.SMALL)
    monkeypatch.setattr(finetune_run, "CHILD", "tests.services.small_encoder")
    prepare_database()
    named = [(path, data.classes[label]) for path, label in zip(data.train.paths, data.train.labels, strict=True)]
    chosen = sorted((one for one in named if one[1] in NAMES), key=lambda one: one[0].name)[: LABELLED + HOLDOUT]
    given = [(str(path), path.read_bytes(), label) for path, label in chosen]
    given += [(str(data.root / "gone.png"), b"gone", "3"), (str(chosen[0][0]), b"other bytes", "8")]
    with transaction() as session:
        config = {"name": "p", "fine_tune": OPTIONS, "encoder": {"name": "efficientnet-lite0"}}
        session.add(Project(id=1, name="p", config=config, label_config=image_config(NAMES)))
        session.flush()
        for place, (uri, content, label) in enumerate(given, start=1):
            item = Item(id=place, project_id=1, key=item_key(f"{place}{uri}"), uri=uri, state="encoded")
            item.content_hash, item.is_holdout = hashlib.sha256(content).hexdigest(), place <= HOLDOUT
            session.add(item)
            session.flush()
            session.add(
                Annotation(project_id=1, item_id=place, external_id=place, label=label, annotator="1",
                           created_at=now(), updated_at=now())
            )  # fmt: skip
    return 1


def test_a_killed_child_goes_on_and_the_new_encoder_is_what_training_here_makes(
    project_id: int, tmp_path: Path
) -> None:
    with reading() as session:
        before = encoding.open_embeddings(session.get_one(Project, project_id)).spec
    cancel = threading.Event()
    told: list[tuple[int, int, str]] = []

    def kill(*progress: object) -> None:
        told.append(progress)  # type: ignore[arg-type]
        cancel.set()

    stopped = fine_tune(project_id, "somebody", kill, cancel)
    found = fine_tune(project_id, "somebody", lambda *_: None)

    assert told
    assert stopped is None or stopped.spec is not None  # it may have been quicker
    assert found is not None
    assert found.spec is not None
    assert found.weights is not None
    assert found.skipped == 2
    assert found.spec.digest != before.digest
    network = reference(found.plan, tmp_path)
    again = small_encoder.read(found.weights)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in network.state_dict().items())
    facts = finetune_plan.recorded(found.spec.path.parent)
    assert facts is not None
    assert (facts["plan"]["parent"], facts["plan"]["snapshot"]) == (before.digest, found.plan.snapshot)
    assert (settings().home / "snapshots" / f"{found.plan.snapshot}.jsonl.gz").is_file()

    answer = CliRunner().invoke(app, ["models", "fine-tune", "p", "--use", "--json"])

    assert json.loads(answer.stdout)["encoder"] == found.spec.digest
    with reading() as session:
        assert [deed.action for deed in session.scalars(sa.select(Deed))] == ["fine-tune", "encoder"]
    used_by_the_project(project_id, found.spec, found.weights)


def reference(plan: finetune_plan.Plan, folder: Path) -> torch.nn.Module:
    """The same training in this process, of images read from their files."""
    with reading() as session:
        items = session.scalars(sa.select(Item).where(~Item.is_holdout).order_by(Item.id)).all()
        labels = {one.item_id: one.label for one in session.scalars(sa.select(Annotation))}
    classes = np.array([NAMES.index(labels[item.id] or "") for item in items], np.int64)
    is_aside = finetune_plan.split(classes, plan.options.aside, plan.seed)[:-2]
    images = [decode(Path(item.uri).read_bytes(), small_encoder.SIDE) for item in items[:-2]]
    examples = Examples(images, classes[:-2], is_aside)
    return train(plan, small_encoder.SMALL, small_encoder.network(), examples, folder, lambda *_: None).network


def used_by_the_project(project_id: int, spec: EncoderSpec, weights: Path) -> None:
    """Its labelled items are encoded anew, a head is fitted, and no label that it was trained on judges that head."""
    with transaction() as session:
        project = session.get_one(Project, project_id)
        change = changes.open_change(session, project_id)
        assert change is not None
        assert change.encoder["weights"] == str(weights)
        change.state = "ready"
        session.add(Round(project_id=1, number=1, workflow_id="w"))
        changes.switch(session, project, 1)
        session.execute(sa.update(Item).where(Item.id > LABELLED + HOLDOUT).values(state="gone"))
        session.flush()
        assert encoding.open_embeddings(project).digest == spec.digest
    encoding.encode_new(project_id, lambda *_: None)
    learn.learn(project_id, 1)
    with reading() as session:
        version = session.scalars(sa.select(ModelVersion)).one()
    trained = finetune_plan.trained_on(spec.path.parent)
    assert version.encoder_digest == spec.digest
    assert LABELLED / 2 < version.lineage["familiar"] == len(trained) < LABELLED
    assert verify(version).answer == "equal"
    with reading() as session:
        shown = card(session, version)["model"]["fine_tuned"]
    assert (shown["seed"], shown["epochs"], shown["by"]) == (0, 5, "somebody")


def test_what_cannot_be_trained_on_is_refused_with_the_mend(project_id: int) -> None:
    with transaction() as session:
        session.execute(sa.update(Annotation).where(Annotation.item_id > 40).values(label=None))

    with pytest.raises(NotFineTunable, match="36 of 2 classes"):
        fine_tune(project_id, "somebody", lambda *_: None)


def test_one_process_a_run_and_a_child_that_fails_says_why(project_id: int, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", plan := replace(plan_of(project_id), encoder="nothing"))
    with run.held(), pytest.raises(FineTuneRunning), Run(run.folder, plan).held():
        pass
    run.keep_examples(iter([(0, np.zeros((8, 8, 3), np.uint8))]), np.zeros(1, np.int64), np.zeros(1, bool))

    with pytest.raises(FineTuneFailed, match="KeyError: 'nothing'"):
        run.carry_out(lambda *_: None)


def plan_of(project_id: int) -> finetune_plan.Plan:
    with reading() as session:
        options = session.get_one(Project, project_id).settings.fine_tune
    return finetune_plan.Plan("efficientnet-lite0", "p", None, NAMES, "s", "d", 0, 1, options)

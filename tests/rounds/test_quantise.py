"""From a project's images to an int8 encoder that it uses, through nncf in its own environment and the command."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from backend.cli import app
from backend.database import Annotation, Deed, EncoderChange, Item, Project, now, reading, transaction
from backend.errors import Int8Missing, Int8Refused, NotQuantisable, PrecisionNotStock
from backend.learning import fidelity
from backend.learning.architectures import ARCHITECTURES
from backend.learning.quantisation import report_of
from backend.pool.catalog import item_key
from backend.pool.folders import digits
from backend.rounds import configured, encoding, trial
from backend.rounds import quantise as quantising
from backend.rounds.items import wanted_encoder
from backend.rounds.quantise import Known, quantise_encoder, sample
from backend.rounds.queue import prepare_database
from backend.scoring.local import LocalEncoder
from backend.scoring.stock import write_stock_model
from backend.settings import settings
from backend.studio.labels import image_config
from tests.conftest import forget_process_state
from tests.services import small_encoder
from tests.services.images import CACHE

ITEMS, LABELLED = 480, 400


@pytest.fixture
def project_id(home: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Digits, most of them labelled; one file has gone."""
    data = digits(CACHE)
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(data.root))
    forget_process_state()
    monkeypatch.setitem(ARCHITECTURES, small_encoder.NAME, small_encoder.SMALL)
    prepare_database()
    named = [(path, data.classes[label]) for path, label in zip(data.train.paths, data.train.labels, strict=True)]
    Random(0).shuffle(named)
    with transaction() as session:
        config = {"name": "p", "encoder": {"name": "efficientnet-lite0"}}
        session.add(Project(id=1, name="p", config=config, label_config=image_config(data.classes)))
        session.flush()
        for place, (path, label) in enumerate(named[:ITEMS], start=1):
            item = Item(id=place, project_id=1, key=item_key(str(path)), uri=str(path), state="encoded")
            item.content_hash = hashlib.sha256(path.read_bytes()).hexdigest()
            session.add(item)
            session.flush()
            if place <= LABELLED:
                session.add(
                    Annotation(project_id=1, item_id=place, external_id=place, label=label, annotator="1",
                               created_at=now(), updated_at=now())
                )  # fmt: skip
        session.get_one(Item, 1).uri = str(data.root / "gone.png")
    return 1


def test_what_passes_is_used_after_a_change_over_and_what_does_not_is_not_kept(
    project_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading() as session:
        project = session.get_one(Project, project_id)
    used = encoding.open_embeddings(project).spec
    monkeypatch.setattr(quantising, "CALIBRATION", 16)
    monkeypatch.setattr(fidelity, "LEAST_OVERLAP", 1.1)  # nothing passes

    refused = CliRunner().invoke(app, ["models", "quantise", "p", "--use", "--json"])

    assert isinstance(refused.exception, Int8Refused)
    said = answered(refused.stdout)
    assert (said["encoder"], said["left_out"]) == (None, 1)
    assert said["labels"] == LABELLED - 1
    folders = {path.name for path in (settings().home / "encoders").iterdir() if path.is_dir()}
    assert folders == {used.digest}
    with reading() as session, pytest.raises(Int8Missing, match="models quantise p --use"):
        configured.replace(session, session.get_one(Project, project_id), with_int8(project))

    monkeypatch.setattr(fidelity, "LEAST_OVERLAP", 0.5)  # a random network of 8 numbers, and only 5 % are counted
    monkeypatch.setattr(fidelity, "MOST_LOST", 0.5)
    monkeypatch.setattr(quantising, "LocalEncoder", once_only(used.digest))
    answer = CliRunner().invoke(app, ["models", "quantise", "p", "--use", "--json"], catch_exceptions=False)

    digest = answered(answer.stdout)["encoder"]
    with reading() as session:
        project = session.get_one(Project, project_id)
        (change,) = session.scalars(sa.select(EncoderChange))
        assert [deed.action for deed in session.scalars(sa.select(Deed))] == ["quantise", "quantise", "encoder"]
    wanted = wanted_encoder(project)
    spec = encoding.spec_of(wanted)
    assert (wanted.digest, change.encoder["digest"], spec.precision) == (digest, digest, "int8")
    assert digest not in {used.digest, replace(spec, precision="fp32").onnx_sha256}
    report = report_of(spec.path.parent)
    assert report is not None
    assert (report["parent"], report["items"]) == (used.digest, ITEMS - 17)
    kinds = {node.op_type for node in onnx.load(str(spec.path)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    exact, fast = (LocalEncoder(one).encode(images) for one in (used, spec))
    assert 0 < np.abs(exact - fast).max() < 0.2 * np.abs(exact).max()
    assert trial.try_out(project, spec).items == trial.ITEMS
    with pytest.raises(PrecisionNotStock, match="int8"):
        write_stock_model(tmp_path, spec, "cpu", instances=1)


def answered(stdout: str) -> dict[str, Any]:
    """What a command printed, behind lines of the log."""
    found: dict[str, Any] = json.loads(stdout[stdout.index("{") :])
    return found


def with_int8(project: Project):  # type: ignore[no-untyped-def]
    encoder = project.settings.encoder.model_copy(update={"precision": "int8"})
    return project.settings.model_copy(update={"encoder": encoder})


def once_only(digest: str):  # type: ignore[no-untyped-def]
    """An encoder that must not be asked again for what is stored: more than the 32 that are timed."""

    class Once(LocalEncoder):
        def encode(self, inputs):  # type: ignore[no-untyped-def]
            assert len(inputs) == quantising._TIMED, "its embeddings were stored"
            return super().encode(inputs)

    return Once


def test_too_few_labels_are_refused_before_anything_is_done(project_id: int) -> None:
    with transaction() as session:
        session.execute(sa.delete(Annotation).where(Annotation.item_id > 333))

    with pytest.raises(NotQuantisable, match="333 labelled images of 10 classes"):
        quantise_encoder(project_id, "somebody", lambda *_: None, lambda _line: None)

    assert not (settings().home / "quantising").exists()


def test_calibration_and_check_share_no_item_and_labels_go_to_the_check() -> None:
    known = [Known(n, f"{n:064x}", "", n % 7 if n < 900 else -1) for n in range(9_000)]

    calibration, checked = sample(known, seed=3)

    assert (len(calibration), len(checked)) == (quantising.CALIBRATION, quantising.CHECKED)
    assert not {one.item_id for one in calibration} & {one.item_id for one in checked}
    assert {one.item_id for one in checked if one.label >= 0} == set(range(900))
    assert sample(known[::-1], seed=3) == (calibration, checked)
    assert sample(known, seed=4) != (calibration, checked)

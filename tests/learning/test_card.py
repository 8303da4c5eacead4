"""A version's card and export say what is there, and what is no longer what it was."""

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from backend.database import ModelVersion, Project, Round, reading, transaction
from backend.errors import ExportRefused, HeadUnreadable
from backend.learning import card, registry
from backend.learning.evaluate import evaluate
from backend.learning.export import export
from backend.learning.heads import Head
from backend.learning.registry import Lineage, head_path, snapshot_path
from backend.learning.snapshots import Row, Snapshot
from backend.rounds.queue import prepare_database


@pytest.fixture
def version(home: Path) -> ModelVersion:
    """v1 of a project, made by a round, measured on four labels."""
    prepare_database()
    random = np.random.default_rng(0)
    head = Head(("cat", "dog"), random.normal(size=3), np.ones(3), random.normal(size=(3, 2)), np.zeros(2))
    snapshot = Snapshot.of("config", [Row("1", "5", "hash", "cat", "ann", "train")])
    snapshot.write(registry.snapshots())
    measured = evaluate(np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]]), np.array([0, 0, 1, 1]), head.classes)
    lineage = {"method": "logistic", "penalty": 1e-4, "labels": 1, "holdout": 4, "class_counts": {"cat": 1}}
    origin = Lineage("e" * 64, snapshot.digest, 42, json.loads(measured.to_json()), lineage)
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"})
        session.add(project)
        session.flush()
        round_ = Round(project_id=project.id, number=1, workflow_id="r1", trigger="labels", state="done")
        session.add(round_)
        session.flush()
        made = registry.record(session, project.id, round_.id, head, origin)
        registry.promote(session, made, "round 1")
    return made


def of(version: ModelVersion) -> card.Card:
    with reading() as session:
        return card.card(session, session.get_one(ModelVersion, version.id))


def test_the_card_tells_where_the_version_comes_from(version: ModelVersion) -> None:
    found = of(version)

    text = card.render(found)
    assert found["made"]["by"] == "round 1"
    assert found["made"]["trigger"] == "labels"
    assert set(found["made"]["libraries"]) == {"numpy", "scipy", "torch", "safetensors"}
    assert found["made"]["libraries"]["numpy"] == np.__version__
    assert found["model"]["parameters"] == 3 * 2 + 2 + 3 + 3 + 1
    assert {name: file["state"] for name, file in found["files"].items()} == {"head": "intact", "snapshot": "intact"}
    for shown in ("birds v1: champion", "seed", "42", version.snapshot, "accuracy           0.750", "promote"):
        assert shown in text
    assert json.loads(json.dumps(found)) == found


def test_the_card_notices_a_changed_and_a_missing_file(version: ModelVersion) -> None:
    head_path(version.head_digest).write_bytes(b"something else")
    snapshot_path(version.snapshot).unlink()

    states = {name: file["state"] for name, file in of(version)["files"].items()}

    assert states == {"head": "changed", "snapshot": "missing"}


def test_a_version_from_before_the_records_has_a_card_too(version: ModelVersion) -> None:
    with transaction() as session:
        old = session.get_one(ModelVersion, version.id)
        old.lineage, old.metrics, old.snapshot = {"penalty": 1e-4}, {}, ""

    found = of(version)

    assert found["model"]["parameters"] is None
    assert found["files"]["head"]["state"] == "unrecorded"
    assert "too few labels" in card.render(found)


def test_an_export_is_whole_and_checked_by_its_list(version: ModelVersion, tmp_path: Path) -> None:
    with reading() as session:
        folder = export(session, version, tmp_path / "out" / "v1")
        archive = export(session, version, tmp_path / "v1.zip")

    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert Head.load(folder / "head.safetensors").digest == version.head_digest
    assert json.loads((folder / "card.json").read_text())["name"] == "v1"
    assert Snapshot.read(folder / "snapshot.jsonl.gz", version.snapshot).rows[0].label == "cat"
    with zipfile.ZipFile(archive) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }


def test_an_export_overwrites_nothing_and_does_not_pass_on_a_broken_head(version: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    with reading() as session:
        with pytest.raises(ExportRefused):
            export(session, version, tmp_path / "there")
        head_path(version.head_digest).write_bytes(b"something else")
        with pytest.raises(HeadUnreadable):
            export(session, version, tmp_path / "new")

    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["there"]

"""Snapshots are compared by item, exported without loss, and found by what they hold."""

import csv
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

from backend.cli import app
from backend.database import ModelVersion, Project, Round, reading, transaction
from backend.errors import ExportRefused, PackageMissing, SnapshotUnreadable, UnknownVersion
from backend.learning import data, registry
from backend.learning.snapshots import Row, Snapshot
from backend.rounds.queue import prepare_database

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
labelled = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["cat", "dog", "owl"]), max_size=8)


def snapshot_of(labels: dict[str, str], config: str = "config") -> Snapshot:
    return Snapshot.of(
        config, [Row(item, f"a{item}", f"h{item}", label, "ann", "train") for item, label in labels.items()]
    )


@settings(max_examples=60, deadline=None)
@given(before=labelled, after=labelled)
def test_a_difference_is_what_leads_from_one_snapshot_to_the_other(
    before: dict[str, str], after: dict[str, str]
) -> None:
    found = data.differ(snapshot_of(before), snapshot_of(after))

    rebuilt = {item: label for item, label in before.items() if item not in found.removed}
    rebuilt |= {one.item_id: one.after for one in found.relabelled}
    rebuilt |= {item: after[item] for item in found.added}
    assert rebuilt == after
    assert all(before[one.item_id] == one.before != one.after for one in found.relabelled)
    assert sum(one.after for one in found.classes) == len(after)
    assert sum(one.share_before for one in found.classes) == pytest.approx(1 if before else 0)


def test_moves_other_content_and_another_configuration_are_seen() -> None:
    before = snapshot_of({"a": "cat", "b": "dog"})
    rows = (replace(before.rows[0], split="holdout"), replace(before.rows[1], content_hash="other"))

    found = data.differ(before, Snapshot.of("other", rows))

    assert (found.moved, found.recontented, found.is_config_changed) == (("a",), ("b",), True)
    assert (found.added, found.removed, found.relabelled) == ((), (), ())


@settings(max_examples=20, deadline=None)
@given(
    rows=st.lists(
        st.builds(Row, texts, texts, texts, texts, texts, st.just("train")),
        max_size=12,
        unique_by=lambda r: (r.item_id, r.annotation_id),
    )
)
def test_a_parquet_table_holds_every_row(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    snapshot = Snapshot.of("config", rows)

    path = data.write_table(snapshot, tmp_path_factory.mktemp("out") / "rows.parquet")

    table = parquet.read_table(path)
    assert table.to_pylist() == [asdict(row) for row in snapshot.rows]
    assert table.schema.metadata[b"nextbatch_snapshot"].decode() == snapshot.digest


def test_a_csv_table_holds_every_row(tmp_path: Path) -> None:
    snapshot = Snapshot.of("c", [Row("1", "2", "h", 'a "cat", big\nand old', "é", "holdout")])

    path = data.write_table(snapshot, tmp_path / "rows.csv")

    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [asdict(row) for row in snapshot.rows]


def test_a_table_overwrites_nothing_and_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of({"a": "cat"})
    data.write_table(snapshot, tmp_path / "rows.csv")

    with pytest.raises(ExportRefused, match="there already"):
        data.write_table(snapshot, tmp_path / "rows.csv")
    with pytest.raises(ExportRefused, match=r"\.csv or \.parquet"):
        data.write_table(snapshot, tmp_path / "rows.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PackageMissing, match=r"nextbatch\[parquet\]"):
        data.write_table(snapshot, tmp_path / "rows.parquet")


@pytest.fixture
def project(home: Path) -> Project:
    """A project with v1 and v2, trained on {1: cat} and {1: dog, 2: dog}."""
    prepare_database()
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"})
        session.add(project)
        session.flush()
        for number, labels in enumerate(({"1": "cat"}, {"1": "dog", "2": "dog"}), start=1):
            snapshot = Snapshot.of(
                "config", [Row(id_, f"10{id_}", id_, label, "7", "train") for id_, label in labels.items()]
            )
            snapshot.write(registry.snapshots())
            round_ = Round(project_id=project.id, number=number, workflow_id=f"r{number}", state="done")
            session.add(round_)
            session.flush()
            made = {"encoder_digest": "e", "head_digest": "h", "seed": 0, "metrics": {}, "state": "champion"}
            session.add(
                ModelVersion(project_id=project.id, round_id=round_.id, number=number, snapshot=snapshot.digest, **made)
            )
    return project


def test_the_versions_that_saw_an_annotation_are_found(project: Project) -> None:
    with reading() as session:
        found = {
            id_: [(version.name, [row.label for row in rows]) for version, rows in data.saw(session, project.id, id_)]
            for id_ in ("101", "102", "103")
        }

    assert found == {"101": [("v1", ["cat"]), ("v2", ["dog"])], "102": [("v2", ["dog"])], "103": []}


def test_an_unreadable_snapshot_is_an_error_and_not_a_no(project: Project) -> None:
    with reading() as session:
        path = registry.snapshot_path(registry.find(session, project.id, "v1").snapshot)
        path.unlink()

        with pytest.raises(SnapshotUnreadable):
            data.saw(session, project.id, "102")


def test_a_snapshot_is_named_by_its_version_or_by_a_part_of_its_digest(project: Project) -> None:
    with reading() as session:
        digest = registry.find(session, project.id, "v1").snapshot

        found = [data.open_snapshot(session, project.id, name).digest for name in ("v1", digest, digest[:10])]
        with pytest.raises(UnknownVersion):
            data.open_snapshot(session, project.id, "0" * 64)

    assert found == [digest] * 3


def test_the_commands_answer(project: Project, tmp_path: Path) -> None:
    runner = CliRunner()

    diff = runner.invoke(app, ["data", "diff", "birds", "v1", "v2"])
    export = runner.invoke(app, ["data", "export", "birds", "v2", "--out", str(tmp_path / "v2.parquet")])
    saw = runner.invoke(app, ["data", "saw", "birds", "102"])

    assert [diff.exit_code, export.exit_code, saw.exit_code] == [0, 0, 0]
    assert "added: 1  2\n" in diff.stdout
    assert "relabelled: 1  1 (cat → dog)" in diff.stdout
    assert parquet.read_table(tmp_path / "v2.parquet").num_rows == 2
    assert saw.stdout.startswith("v2")

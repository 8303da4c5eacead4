"""Versions are promoted, rolled back, tagged and deleted as promised, and the books say who did it."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from backend.cli import app
from backend.database import Batch, ModelVersion, Project, Round, reading, transaction
from backend.errors import HeadUnreadable, NoEarlierVersion, UnknownVersion, VersionDeleted, VersionInUse
from backend.hooks import Hooks
from backend.learning import registry
from backend.learning.heads import Head
from backend.learning.registry import Lineage, head_path
from backend.learning.snapshots import Row, Snapshot
from backend.rounds.queue import prepare_database

DIMS = 6


@pytest.fixture
def project(home: Path) -> Project:
    """An empty project."""
    prepare_database()
    return a_project()


def a_project() -> Project:
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"}, studio_project_id=7)
        session.add(project)
    return project


def a_head(seed: int) -> Head:
    random = np.random.default_rng(seed)
    return Head(("cat", "dog"), random.normal(size=DIMS), np.ones(DIMS), random.normal(size=(DIMS, 2)), np.zeros(2))


def learn(project: Project, number: int, is_worse: bool = False, head: int | None = None) -> ModelVersion:
    """What a round does once its head is fitted."""
    snapshot = Snapshot.of("config", [Row(str(n), "1", f"hash{n}", "cat", "ann", "train") for n in range(number)])
    snapshot.write(registry.snapshots())
    origin = Lineage("encoder", snapshot.digest, number, {}, {"method": "logistic", "labels": number})
    with transaction() as session:
        round_ = Round(project_id=project.id, number=number, workflow_id=f"r{number}", trigger="hand", state="done")
        session.add(round_)
        session.flush()
        version = registry.record(session, project.id, round_.id, a_head(number if head is None else head), origin)
        if is_worse:
            registry.refuse(session, version, f"round {number}")
        else:
            registry.promote(session, version, f"round {number}")
    return version


def states(project: Project) -> dict[str, str]:
    with reading() as session:
        return {version.name: version.state for version in registry.versions(session, project.id)}


def rolled_back(project: Project) -> str:
    with transaction() as session:
        return registry.rollback(session, project.id, "ann")[1].name


def promoted(project: Project, name: str) -> None:
    with transaction() as session:
        registry.promote(session, registry.find(session, project.id, name), "ann")


def test_there_is_one_champion_and_the_web_process_asks_it_at_once(store: str) -> None:
    project = a_project()
    learn(project, 1), learn(project, 2), learn(project, 3, is_worse=True)
    before = Hooks(project_id="7").model_version

    promoted(project, "v1")

    assert before == "v2"
    assert Hooks(project_id="7").model_version == "v1"
    assert states(project) == {"v1": "champion", "v2": "retired", "v3": "refused"}


def test_a_rollback_goes_back_to_what_answered_before_and_again_further(project: Project) -> None:
    learn(project, 1), learn(project, 2), learn(project, 3, is_worse=True), learn(project, 4)
    promoted(project, "v1")

    assert [rolled_back(project), rolled_back(project), rolled_back(project)] == ["v4", "v2", "v1"]
    with pytest.raises(NoEarlierVersion, match="Before v1"):
        rolled_back(project)
    assert states(project)["v1"] == "champion"


def test_a_rollback_passes_over_what_was_deleted(project: Project) -> None:
    learn(project, 1), learn(project, 2), learn(project, 3), learn(project, 4)
    promoted(project, "v3"), promoted(project, "v2"), promoted(project, "v4")
    with transaction() as session:
        registry.delete(session, registry.find(session, project.id, "v2"), "ann")

    assert [rolled_back(project), rolled_back(project)] == ["v3", "v4"]


def test_a_version_whose_head_is_gone_is_not_promoted(project: Project) -> None:
    first = learn(project, 1)
    learn(project, 2)
    head_path(first.head_digest).unlink()

    with pytest.raises(HeadUnreadable):
        promoted(project, "v1")

    assert states(project) == {"v1": "retired", "v2": "champion"}


def test_what_is_in_use_is_not_deleted(project: Project) -> None:
    versions = [learn(project, number) for number in (1, 2, 3)]
    with transaction() as session:
        common = {"project_id": project.id, "strategy": "margin", "state": "published"}
        session.add(
            Batch(round_id=versions[0].round_id, number=1, version="v1+b1", model_version_id=versions[0].id, **common)
        )

    for name, reason in (("v3", "the champion"), ("v2", "parent of the champion v3"), ("v1", "batch v1\\+b1")):
        with transaction() as session, pytest.raises(VersionInUse, match=reason):
            registry.delete(session, registry.find(session, project.id, name), "ann")

    assert all(head_path(version.head_digest).is_file() for version in versions)


def test_a_deleted_version_keeps_its_number_and_record_and_is_never_promoted(project: Project) -> None:
    versions = [learn(project, number) for number in (1, 2, 3)]
    with transaction() as session:
        is_gone = registry.delete(session, registry.find(session, project.id, "v1"), "ann")

    with pytest.raises(VersionDeleted):
        promoted(project, "v1")
    assert is_gone
    assert not head_path(versions[0].head_digest).exists()
    assert registry.snapshot_path(versions[0].snapshot).is_file()
    assert states(project)["v1"] == "deleted"


def test_equal_heads_share_a_file_until_the_last_is_deleted(project: Project) -> None:
    learn(project, 1, head=9), learn(project, 2, head=9), learn(project, 3), learn(project, 4)
    with transaction() as session:
        gone = [registry.delete(session, registry.find(session, project.id, name), "ann") for name in ("v1", "v2")]

    assert gone == [False, True]


def test_tags_find_versions_and_the_books_tell_who_did_what(project: Project) -> None:
    learn(project, 1), learn(project, 2)
    with transaction() as session:
        version = registry.find(session, project.id, "v1")
        for name in ("shipped", "best", "shipped"):
            registry.tag(session, version, name, "ann")
        registry.tag(session, version, "best", "ann", remove=True)
    rolled_back(project)

    with reading() as session:
        found = [version.name for version in registry.versions(session, project.id, tag="shipped")]
        books = [(line.action, line.actor, line.detail) for line in registry.changes(session, project.id)]

    assert found == ["v1"]
    assert books == [
        ("promote", "round 1", ""),
        ("promote", "round 2", ""),
        ("tag", "ann", "shipped"),
        ("tag", "ann", "best"),
        ("untag", "ann", "best"),
        ("rollback", "ann", ""),
    ]


@pytest.mark.parametrize("name", ["v9", "", "v", "v-1", "vv1", "champion", "v99999999999999999999"])
def test_an_unknown_version_names_the_known_ones(project: Project, name: str) -> None:
    with transaction() as session:
        session.execute(sa.update(ModelVersion).values(state="retired"))
    learn(project, 1, is_worse=True)

    with reading() as session, pytest.raises(UnknownVersion, match="It has: v1"):
        registry.find(session, project.id, name)


def test_the_commands_do_it(project: Project) -> None:
    learn(project, 1), learn(project, 2)
    runner = CliRunner()

    outputs = [
        runner.invoke(app, ["models", *arguments])
        for arguments in (["rollback", "birds"], ["tag", "birds", "v2", "slow"], ["list", "birds", "--tag", "slow"])
    ]

    assert [output.exit_code for output in outputs] == [0, 0, 0]
    assert "v1 is the champion of birds again; v2 has retired" in outputs[0].stdout
    assert outputs[2].stdout.startswith("v2     retired")

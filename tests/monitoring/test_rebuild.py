"""A head is made again from its record and the stored embeddings, with an equal digest; what cannot be is said."""

import json
import subprocess
import sys

import pytest

from backend.database import ModelVersion, Project, reading, transaction
from backend.errors import LoanUnreadable, NotRebuildable
from backend.learning import registry, training
from backend.learning.card import card, render
from backend.learning.heads import Head
from backend.questions import set_label
from backend.rounds import comparison, learn
from backend.rounds.rebuild import verify
from tests.monitoring.conftest import CLASSES, Played


@pytest.mark.parametrize("labels", [12, 80])
def test_a_head_fitted_with_the_pools_graph_is_made_again_after_the_pool_changed(played: Played, labels: int) -> None:
    played.label(range(labels))
    played.learn()
    played.label(range(labels, labels + 20))
    played.learn()

    verdict = verify(played.version("v1"))

    assert played.version("v1").lineage["graph_nodes"] == 200
    assert (verdict.answer, verdict.largest_gap, verdict.changed, verdict.labels) == ("equal", 0.0, (), labels)


def test_a_logistic_head_is_made_again_from_its_labels_alone(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PROPAGATION_LABELS", 10)
    played.label(range(60))
    played.label(range(30), annotator="2", names=["dog", "cat"] * 15)  # disputed: the later one counts
    played.hold_out(range(60, 80))
    played.label(range(60, 80))
    played.learn()

    version = played.version("v1")

    assert "loan" not in version.lineage
    assert not registry.loans().exists()
    assert verify(version).answer == "equal"


def test_a_question_that_came_to_have_several_answers_is_learned_beside_the_model_of_one(played: Played) -> None:
    played.label(range(60))
    played.learn()
    played.configure(CLASSES, label_source="api")
    with transaction() as session:
        project = session.get_one(Project, played.project_id)
        project.label_config = project.label_config.replace('choice="single"', 'choice="multiple"', 1)
    played.label(range(60, 90), names=[set_label(["cat", "dog"]), "[]", set_label(["dog"])] * 10)

    report = played.learn()

    version = played.version("v2")
    assert report["is_promoted"]
    assert version.lineage["class_counts"] == {"cat": 30 + 10, "dog": 30 + 20}
    assert verify(version).answer == verify(played.version("v1")).answer == "equal"
    with reading() as session:
        assert comparison.compare(session, version, played.version("v1")) is None


@pytest.mark.parametrize("kind", ["mlp", "best"])
def test_a_configured_head_and_what_was_found_for_it_are_made_again(played: Played, kind: str) -> None:
    head = {"kind": kind, "balanced": True, "tune_s": 60, "tune_trials": 2}
    played.configure(CLASSES, head=head)
    played.label(range(60))
    played.learn()

    version = played.version("v1")
    verdict = verify(version)

    assert verdict.answer == "equal"
    assert version.lineage["tuning"]["trials"] == ({"mlp": 2} if kind == "mlp" else {"logistic": 2, "mlp": 2})
    assert version.lineage["parameters"] == registry.load_head(version).parameters
    assert ("loan" in version.lineage) == (kind == "best")
    with reading() as session:
        shown = render(card(session, version))
    assert "tuning" in shown


def test_another_process_makes_the_same_head(played: Played) -> None:
    played.label(range(40))
    played.learn()

    command = [sys.executable, "-m", "backend.cli", "models", "verify", "p", "v1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"] == "equal"


def test_a_head_that_its_record_does_not_explain_is_different(played: Played) -> None:
    played.label(range(40))
    played.learn()
    other = Head(
        ("cat", "dog"),
        *(getattr(registry.load_head(played.version("v1")), name) for name in ("mean", "scale")),
        weights=-registry.load_head(played.version("v1")).weights,
        bias=[0, 0],
    )
    registry.save_head(other)
    with transaction() as session:
        session.get_one(ModelVersion, played.version("v1").id).head_digest = other.digest

    verdict = verify(played.version("v1"))

    assert verdict.answer == "different"
    assert verdict.largest_gap is not None
    assert verdict.largest_gap > 0.5


def test_without_the_graph_or_the_record_it_says_so(played: Played) -> None:
    played.label(range(40))
    played.learn()
    version = played.version("v1")
    path = registry.loan_path(version.lineage["loan"])
    content = path.read_bytes()

    path.chmod(0o644)
    path.write_bytes(content[:-4] + b"\1\0\0\0")
    with pytest.raises(LoanUnreadable, match="does not match"):
        verify(version)
    path.unlink()
    with pytest.raises(LoanUnreadable):
        verify(version)
    version.lineage = {"penalty": 1e-4}
    with pytest.raises(NotRebuildable, match="classes"):
        verify(version)


def test_a_deleted_version_takes_its_graph_along(played: Played) -> None:
    for labels in (range(20), range(20, 40), range(40, 60)):
        played.label(labels)
        played.learn()
    path = registry.loan_path(played.version("v1").lineage["loan"])

    with transaction() as session:
        registry.delete(session, registry.find(session, played.project_id, "v1"), "ann")

    assert not path.exists()
    assert len(list(registry.loans().iterdir())) == 2


def test_two_versions_are_compared_on_the_holdout_as_it_is_labelled_now(played: Played) -> None:
    played.label(range(6), names=["cat", "dog", "dog", "cat", "cat", "dog"])  # a wrong beginning
    played.learn()
    played.label(range(6, 100))
    played.learn()
    with reading() as session:
        before = comparison.compare(session, played.version("v2"), played.version("v1"))
    played.hold_out(range(100, 160))
    played.label(range(100, 160))

    with reading() as session:
        found = comparison.compare(session, played.version("v2"), played.version("v1"))
        itself = comparison.compare(session, played.version("v2"), played.version("v2"))

    assert before is None
    assert found is not None
    whole = found.comparison
    assert (whole.labels, whole.is_worse, whole.won > whole.lost) == (60, False, True)
    assert itself is not None
    assert (itself.comparison.won, itself.comparison.lost) == (0, 0)


def test_a_round_that_is_repeated_finds_its_version(played: Played) -> None:
    played.label(range(20))
    first = played.learn()

    assert learn.learn(played.project_id, played.rounds) == first

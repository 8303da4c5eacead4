"""A challenger scores beside the champion, is asked for its share, and wins or loses by a comparison, not by luck."""

from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import pytest
import sqlalchemy as sa

from backend.database import Alert, Batch, ModelChange, ModelVersion, Pick, Round, reading, transaction
from backend.errors import BadSearchTerm, VersionInUse
from backend.hooks import Hooks
from backend.learning import challenge as challenging
from backend.learning import registry, usage
from backend.learning.evaluate import p_of_so_many
from backend.learning.heads import Head
from backend.learning.registry import Lineage
from backend.rounds import challenge, choose, learn
from tests.monitoring.conftest import DIMS, Played
from tests.monitoring.test_commands import run


@pytest.fixture
def rivals(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    """v1, fitted to 60 labels, answers; v2 is its head with the two classes exchanged. 80 labels of the holdout."""
    monkeypatch.setattr(choose, "open_embeddings", learn.open_embeddings)
    played.hold_out(range(100, 180))
    played.label(range(60))
    played.label(range(100, 180))
    played.learn()
    return played


def add_version(played: Played, head: Head) -> ModelVersion:
    """A version that somebody else made of the champion's data; not promoted."""
    parent = played.version("v1")
    played.rounds += 1
    with transaction() as session:
        round_ = Round(
            project_id=played.project_id, number=played.rounds, workflow_id=f"r{played.rounds}", state="done"
        )
        session.add(round_)
        session.flush()
        origin = Lineage(parent.encoder_digest, parent.snapshot, 1, {}, {"penalty": 1.0, "method": "logistic"})
        return registry.record(session, played.project_id, round_.id, head, origin)


def exchanged(head: Head) -> Head:
    return Head(head.classes, head.mean, head.scale, head.weights[:, ::-1], head.bias[::-1], head.temperature)


def a_batch(played: Played) -> list[Pick]:
    with transaction() as session:
        played.rounds += 1
        session.add(
            Round(project_id=played.project_id, number=played.rounds, workflow_id=f"r{played.rounds}", state="running")
        )
    choose.choose(played.project_id, played.rounds)
    with reading() as session:
        newest = sa.select(sa.func.max(Batch.id))
        return list(session.scalars(sa.select(Pick).where(Pick.batch_id == newest.scalar_subquery())))


def test_each_pick_says_whose_prediction_it_shows_and_what_the_other_one_said(rivals: Played) -> None:
    rivals.configure(("cat", "dog"), challenger={"share": 0.4}, batch={"size": 50})
    before = a_batch(rivals)
    add_version(rivals, exchanged(registry.load_head(rivals.version("v1"))))
    told = run("models", "challenge", "p", "v2")

    with transaction() as session:
        session.execute(sa.update(Batch).values(state="replaced"))
    picks = a_batch(rivals)

    theirs = [pick for pick in picks if pick.model == "v2"]
    assert told == "v2 challenges the champion of p\n"
    assert {pick.model for pick in before} == {"v1"}
    assert {pick.shadow for pick in before} == {None}
    assert {pick.model for pick in picks} == {"v1", "v2"}
    assert 8 <= len(theirs) <= 32  # of 50, 40 % by hash
    for pick in picks:
        assert pick.prediction["label"] != pick.shadow["label"]
        assert pick.shadow["version"] == ("v1" if pick in theirs else "v2")


def test_a_challenger_that_loses_is_withdrawn_by_rule_and_one_that_wins_is_promoted(rivals: Played) -> None:
    rivals.configure(("cat", "dog"), challenger={"decide": "rule", "labels": 50})
    good = registry.load_head(rivals.version("v1"))
    add_version(rivals, exchanged(good))
    run("models", "challenge", "p", "v2")

    lost = challenge.decide(rivals.project_id, rivals.rounds)
    run("models", "promote", "p", "v2")
    run("models", "challenge", "p", "v1")
    won = challenge.decide(rivals.project_id, rivals.rounds)

    assert lost == {"challenger": "v2", "challenger_is": "worse"}
    assert won == {"challenger": "v1", "challenger_is": "better"}
    assert (rivals.version("v1").state, rivals.version("v2").state) == ("champion", "retired")
    assert rivals.alerts()[-2:] == [("note", "challenger_worse"), ("note", "challenger_better")]
    assert "accuracy -" in run("models", "show", "p", "v2")  # in the books


def test_a_challenger_that_is_alike_stays_and_is_looked_at_again_only_at_twice_the_labels(rivals: Played) -> None:
    rivals.configure(("cat", "dog"), challenger={"decide": "rule", "labels": 30})
    good = registry.load_head(rivals.version("v1"))
    add_version(rivals, Head(good.classes, good.mean, good.scale, good.weights * 1.001, good.bias, good.temperature))
    run("models", "challenge", "p", "v2")

    answers = [challenge.decide(rivals.project_id, rivals.rounds) for _ in range(3)]

    with reading() as session:
        looks = session.scalars(sa.select(ModelChange.action).where(ModelChange.action == "look")).all()
    assert [one.get("challenger_is") for one in answers] == ["undecided", "undecided", None]  # at 30 and 60 of 80
    assert len(looks) == 2
    with pytest.raises(VersionInUse, match="it challenges the champion"):
        run("models", "delete", "p", "v2")
    assert run("models", "challenge", "p", "v2", "--withdraw") == "v2 challenges no longer\n"
    assert rivals.version("v2").state == "candidate"


def test_by_hand_people_are_told_what_to_do(rivals: Played) -> None:
    rivals.configure(("cat", "dog"), challenger={"labels": 50})
    add_version(rivals, exchanged(registry.load_head(rivals.version("v1"))))
    run("models", "challenge", "p", "v2")

    challenge.decide(rivals.project_id, rivals.rounds)

    with reading() as session:
        alert = session.scalars(sa.select(Alert).where(Alert.code == "challenger_worse")).one()
    assert alert.severity == "warn"
    assert "--withdraw" in alert.message
    assert rivals.version("v2").state == "challenger"


def test_a_challenger_that_is_no_better_is_rarely_promoted() -> None:
    random, promoted = np.random.default_rng(0), 0
    for _ in range(300):
        won, lost = random.uniform(size=800) < 0.1, random.uniform(size=800) < 0.1
        for look, n in enumerate((100, 200, 400, 800)):
            p = p_of_so_many(int(won[:n].sum()), int(lost[:n].sum()))
            if p <= challenge._LEVEL / 2 ** (look + 1):
                promoted += 1
                break

    assert promoted <= 12  # 2.5 % of 300 would be 7.5


def test_predict_asks_the_challenger_for_its_share_and_counts(rivals: Played) -> None:
    rivals.configure(("cat", "dog"), challenger={"share": 0.5})
    add_version(rivals, exchanged(registry.load_head(rivals.version("v1"))))
    tasks = [{"id": at + 1, "data": {"image": f"https://example.org/{at}.jpg"}} for at in range(40)]
    alone = Hooks("1").predict(tasks)
    run("models", "challenge", "p", "v2")

    shared = Hooks("1").predict(tasks)
    usage.count(987_654, 5)  # a version that is gone for good costs the others nothing
    usage.flush()

    with reading() as session:
        asked = [usage.asked(session, rivals.version(name).id) for name in ("v1", "v2")]
    assert {one["model_version"] for one in alone} == {"v1"}
    theirs = [at for at, one in enumerate(shared) if one["model_version"] == "v2"]
    assert 8 <= len(theirs) <= 32
    for at, (before, after) in enumerate(zip(alone, shared, strict=True)):
        assert (before["result"] != after["result"]) == (at in theirs)
    assert asked == [80 - len(theirs), len(theirs)]
    assert challenging.is_challengers("key", "v2", 1.0)
    assert not challenging.is_challengers("key", "v2", 0.0)


def test_versions_are_found_by_words_and_by_comparisons(rivals: Played) -> None:
    add_version(rivals, exchanged(registry.load_head(rivals.version("v1"))))
    run("models", "tag", "p", "v2", "experiment")

    def names(*terms: str) -> list[str]:
        return [line.split()[0] for line in run("models", "search", "p", *terms).splitlines()]

    assert names("experiment") == ["v2"]
    assert names("accuracy>0.5") == ["v1"]
    assert names("labels>=60", "state=champion") == ["v1"]
    assert names("made>2020") == ["v2", "v1"]
    assert names("promote") == ["v1"]
    with pytest.raises(BadSearchTerm, match="one of these names"):
        names("colour=red")


def test_the_layers_are_drawn(rivals: Played, tmp_path: Path) -> None:
    drawn = run("models", "layers", "p")

    assert f"[head         ]  linear, {DIMS} → 2; {DIMS * 2 + 2} parameters" in drawn
    svg = tmp_path / "layers.svg"
    run("models", "layers", "p", "--svg", str(svg))
    assert svg.read_text().count("<rect") == 4
    defusedxml.ElementTree.parse(svg)

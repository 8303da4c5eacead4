"""Versions that say numbers, or sets, live as others do: compared, challenged, looked at, their labels checked."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from backend.database import Item, ModelAnalysis, ModelChange, Pick, Project, reading, transaction
from backend.learning import look, registry
from backend.learning.sensitivity import CHANGES
from backend.pool.catalog import labelled
from backend.questions import question, set_label
from backend.rounds import analyse, challenge, choose, encoding, learn
from backend.rounds.source import _asked_again
from backend.studio.labels import image_config
from backend.web.app import create_app
from strategies import Task
from tests.monitoring.conftest import DIMS, Played, clusters
from tests.monitoring.test_challenge import add_version
from tests.monitoring.test_commands import run
from tests.monitoring.test_quality import ask

NUMBERS = '<View><Image name="image" value="$image"/><Number name="n" toName="image"/></View>'
LABELS = ("sky", "sea", "ship")
HELD = range(100, 180)


def configure(played: Played, label_config: str | None = None, **config: object) -> None:
    with transaction() as session:
        project = session.get_one(Project, played.project_id)
        project.label_config = label_config or project.label_config
        project.config = {**project.config, **config}


@pytest.fixture
def seen(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    for module in (analyse, choose, encoding):
        monkeypatch.setattr(module, "open_embeddings", learn.open_embeddings)
    played.hold_out(HELD)
    return played


@pytest.fixture
def numbered(seen: Played) -> Played:
    """People gave numbers that follow an embedding: 100 to learn from, 80 of the holdout. Two are far off."""
    configure(seen, NUMBERS)
    vectors, noise = clusters(200)[0], np.random.default_rng(3).normal(size=200)
    numbers = 10 + vectors[:, 0] + vectors[:, 1] + 0.5 * noise
    numbers[[3, 104]] += (9, -9)
    seen.label(range(180), names=[f"{number:.2f}" for number in numbers[:180]])
    return seen


@pytest.fixture
def grouped(seen: Played) -> Played:
    """People gave sets of three labels that follow the embeddings: 100 to learn from, 80 of the holdout."""
    configure(seen, image_config(LABELS).replace('choice="single"', 'choice="multiple"', 1))
    there = clusters(200)[0][:, :3] > 0
    names = [set_label(np.array(LABELS)[row].tolist()) for row in there]
    for place in (5, 104):
        names[place] = set_label(set(LABELS) - set(json.loads(names[place])))
    seen.label(range(180), names=names[:180])
    return seen


def spoil(played: Played, places: range) -> None:
    """These items of the holdout come from an old camera, and their embeddings say nothing of their labels."""
    random = np.random.default_rng(8)
    with transaction() as session:
        for place in HELD:
            known: dict[str, object] = {"data": {"camera": "old" if place in places else "new"}}
            if place in places:
                known["content_hash"] = hashlib.sha256(f"old {place}".encode()).hexdigest()
                played.store.put([str(known["content_hash"])], random.normal(size=(1, DIMS)).astype(np.float32) * 3)
            session.execute(sa.update(Item).where(Item.id == played.items[place]).values(**known))


@pytest.mark.parametrize(("kind", "title"), [("numbered", "mean abs. error"), ("grouped", "micro F1")])
def test_slices_are_kept_with_the_version_and_shown(kind: str, title: str, request: pytest.FixtureRequest) -> None:
    played: Played = request.getfixturevalue(kind)
    spoil(played, range(160, 180))
    played.learn()

    report = analyse.analyse(played.project_id, played.rounds)

    with reading() as session:
        kept = session.get_one(ModelAnalysis, played.version("v1").id)
        found = look.read(kept.found)
    first = found.slices[0]
    assert report == {"analysed": ["v1"]}
    assert (first.field, first.value, first.items, first.is_worse) == ("camera", "old", 20, True)
    assert {one.field for one in found.slices} == {"camera", "labelled"}
    assert title in dict(first.measures)
    assert f"camera = old: {first.measures[0][0]} {first.measures[0][1].value:.3f}" in run("models", "show", "p", "v1")
    page = create_app().test_client().get("/projects/p/models/compare?one=v1&other=v1").text
    assert "worse than the rest" in page
    assert "camera old" in page
    assert title[1:] in page


@pytest.mark.parametrize(
    ("kind", "told"),
    [("numbered", "predictions stay, mean absolute error +"), ("grouped", "predictions stay, accuracy -")],
)
def test_small_changes_of_the_input_are_looked_at_too(kind: str, told: str, request: pytest.FixtureRequest) -> None:
    played: Played = request.getfixturevalue(kind)
    with reading() as session:
        held = [session.get_one(Item, played.items[place]).content_hash for place in HELD]
    for name, shift in zip(CHANGES, (0, 0, 0, 0, 4), strict=True):  # as if they had been encoded before
        names = [analyse._named(str(hash_), name) for hash_ in held]
        played.store.put(names, clusters(200)[0][HELD.start : HELD.stop] + np.float32(shift))
    played.learn()

    analyse.analyse(played.project_id, played.rounds)

    with reading() as session:
        *others, last = look.read(session.get_one(ModelAnalysis, played.version("v1").id).found).changes
    assert {(one.kept, one.difference, one.is_worse) for one in others} == {(1.0, 0.0, False)}
    assert last.kept < 0.5
    assert last.is_worse
    assert f"JPEG quality 30: {last.kept:.0%} of 64 {told}" in run("models", "show", "p", "v1")


@pytest.mark.parametrize(
    ("kind", "wrong", "says"), [("numbered", (3, 104), "give or take"), ("grouped", (5, 104), "a model that has not")]
)
def test_wrong_labels_are_found_and_become_a_batch(
    kind: str, wrong: tuple[int, int], says: str, request: pytest.FixtureRequest
) -> None:
    played: Played = request.getfixturevalue(kind)
    played.learn()

    batch = ask(played, checks=True)
    told = json.loads(run("data", "check", "p", "--json"))

    with reading() as session:
        picks = session.scalars(sa.select(Pick).where(Pick.batch_id == batch.id).order_by(Pick.rank)).all()
        again = _asked_again(session, batch, is_new=True)
    assert batch.strategy == "check_labels"
    assert {played.items[place] for place in wrong} <= {pick.item_id for pick in picks}
    assert len(picks) <= 12
    assert again == {pick.item_id for pick in picks}
    assert says in picks[0].reason
    assert {played.items[place] for place in wrong} <= {one["item"] for one in told}
    assert says in told[0]["why"]


def test_a_challenger_that_says_numbers_wins_and_loses_by_its_errors(numbered: Played) -> None:
    configure(numbered, challenger={"decide": "rule", "labels": 50})
    numbered.learn()
    good = registry.load_head(numbered.version("v1"))
    add_version(numbered, replace(good, bias=good.bias + 2))
    run("models", "challenge", "p", "v2")

    lost = challenge.decide(numbered.project_id, numbered.rounds)
    run("models", "promote", "p", "v2")
    run("models", "challenge", "p", "v1")
    won = challenge.decide(numbered.project_id, numbered.rounds)

    compared = run("models", "compare", "p", "v2", "v1")
    with reading() as session:
        looks = session.scalars(sa.select(ModelChange.detail).where(ModelChange.action == "look")).all()
    assert (lost["challenger_is"], won["challenger_is"]) == ("worse", "better")
    assert numbered.version("v1").state == "champion"
    assert all(look.startswith("mean absolute error") for look in looks)
    assert "v2 against v1 on 80 labels of the holdout: mean absolute error +1." in compared
    assert "v2 is worse" in compared
    assert "root mean square" in compared


def test_people_who_disagree_about_a_set_are_heard_label_by_label(grouped: Played) -> None:
    for annotator, names in (("2", ["sky", "sea"]), ("3", ["sea", "ship"]), ("4", ["sky", "sea", "ship"])):
        grouped.label(range(190, 191), names=[set_label(names)], annotator=annotator)

    with reading() as session:
        known = labelled(session, grouped.project_id, question(Task.MULTI_LABEL, LABELS))

    (one,) = [row for row in known if row.item_id == grouped.items[190]]
    assert one.label == set_label(["sky", "sea", "ship"])
    assert list(one.annotations.values()) == ["2", "3", "4"]  # everybody's answer made it so

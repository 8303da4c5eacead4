"""Every strategy can choose a round's batch: it gets what it asks for, or coverage stands in for it."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import strategies
from backend.cli import app
from backend.database import Annotation, Batch, Item, Pick, Project, Round, now, reading, transaction
from backend.errors import NothingToLookFor, StrategyFieldMissing
from backend.learning.encoders import EncoderSpec
from backend.rounds import choose
from backend.rounds.encoding import Embeddings
from backend.rounds.likes import Like, like
from backend.rounds.queue import prepare_database, request_round
from backend.rounds.votes import Cast, cast
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from tests.web.champion import DIMS, Champion, crown
from tests.web.conftest import IMAGE_CONFIG

ITEMS, LABELS = 60, 12
FOR_CLASSES = [
    name for name in sorted(strategies.names()) if strategies.Task.CLASSIFICATION in strategies.create(name).tasks
]
_numbers = itertools.count(1)


@pytest.fixture
def champion(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Project, Champion]:
    """A project with a champion, 60 encoded items and 12 labels."""
    prepare_database()
    with transaction() as session:
        project = Project(name="p", config={"name": "p"}, studio_project_id=1, label_config=IMAGE_CONFIG)
        session.add(project)
    made = crown(project, ITEMS)
    spec = EncoderSpec("efficientnet-lite0", made.encoder_digest, DIMS, 32, "fp32", "", home / "none")
    store = VectorStore(settings().home / "vectors", made.encoder_digest, DIMS)
    monkeypatch.setattr(choose, "open_embeddings", lambda _config: Embeddings(spec, store))
    day = now() - dt.timedelta(days=1)
    with transaction() as session:
        for at, item in enumerate(session.scalars(sa.select(Item).order_by(Item.id))):
            item.data = {"minutes": at + 1, "camera": f"camera {at % 3}"}
            if at < LABELS:
                label = made.head.classes[at % 2]
                known = {"external_id": at, "label": label, "created_at": day, "updated_at": day}
                session.add(Annotation(project_id=project.id, item_id=item.id, **known))
    return project, made


def chosen(
    project: Project, like: Like | None = None, size: int = 8, **strategy: Any
) -> tuple[dict[str, Any], list[tuple[Item, Pick]]]:
    """A round's batch with this strategy, or of what it was asked to be like."""
    number = 10 + next(_numbers)
    with transaction() as session:
        config = {"name": "p", "batch": {"size": size, "holdout_share": 0}, "strategy": strategy}
        session.get_one(Project, project.id).config = config
        asked = (like or Like()).as_dict()
        session.add(Round(project_id=project.id, number=number, workflow_id=f"round:{number}", like=asked))
    report = choose.choose(project.id, number)
    with reading() as session:
        query = sa.select(Item, Pick).join(Pick, Pick.item_id == Item.id).join(Batch, Batch.id == Pick.batch_id)
        rows = session.execute(query.where(Batch.version == report["batch"]).order_by(Pick.rank)).all()
    return report, [(item, pick) for item, pick in rows]


@pytest.mark.parametrize("name", FOR_CLASSES)
def test_it_chooses_a_batch(champion: tuple[Project, Champion], name: str) -> None:
    project, _ = champion

    report, picks = chosen(project, name=name, cost_field="minutes", group_field="camera")

    assert report["size"] == 8
    assert len({item.id for item, _ in picks}) == 8
    assert all(pick.reason for _, pick in picks)
    assert report["strategy"] == name or name in ("auto", "tcm")  # these two say what they chose


def test_the_price_and_the_groups_are_fields_of_the_data(champion: tuple[Project, Champion]) -> None:
    project, _ = champion

    cheap = [item.data["minutes"] for item, _ in chosen(project, name="per_cost", cost_field="minutes")[1]]
    even = [item.data["camera"] for item, _ in chosen(project, name="metadata_balance", group_field="camera")[1]]

    assert np.mean(cheap) < np.mean(range(LABELS + 1, ITEMS + 1))
    assert max(even.count(camera) for camera in set(even)) == 3  # eight picks of three cameras: 3, 3 and 2
    with pytest.raises(StrategyFieldMissing, match="no_such_field"):
        chosen(project, name="per_cost", cost_field="no_such_field")


def test_without_a_model_coverage_stands_in_and_says_so(champion: tuple[Project, Champion]) -> None:
    project, _ = champion
    with transaction() as session:
        session.execute(sa.text("UPDATE model_versions SET state = 'retired'"))

    report, picks = chosen(project, name="margin")

    assert len(picks) == 8
    assert report["policy"] == "Coverage (typiclust): margin needs a model, and there is none yet."


def test_the_folded_head_gives_the_heads_logits(champion: tuple[Project, Champion]) -> None:
    _, made = champion

    weights, bias = made.head.folded

    np.testing.assert_allclose(made.vectors @ weights + bias, made.head.logits(made.vectors), atol=1e-4)


def say(project: Project, who: str, labels: dict[int, str | None]) -> None:
    """A person labels items, by their place in the order of ids; None is a skip."""
    with transaction() as session:
        items = session.scalars(sa.select(Item.id).order_by(Item.id)).all()
        first = session.scalar(sa.select(sa.func.max(Annotation.external_id))) or 0
        for at, (place, label) in enumerate(labels.items(), start=1):
            known = {"external_id": first + at, "label": label, "annotator": who, "lead_time_s": 2.0}
            times = {"created_at": now() - dt.timedelta(hours=1), "updated_at": now()}
            session.add(Annotation(project_id=project.id, item_id=items[place], **known, **times))


def test_a_batch_holds_new_items_and_second_opinions_of_what_one_person_labelled(
    champion: tuple[Project, Champion],
) -> None:
    project, _ = champion
    say(project, "ann", {place: ("cat", "dog")[place % 2] for place in range(LABELS, 30)})
    say(project, "ben", {LABELS: "cat", LABELS + 1: "cat", LABELS + 2: None, 31: "dog"})

    _, picks = chosen(project, name="active_lab", size=45)

    places = {item.task_id % 10_000 for item, _ in picks}
    assert places & set(range(15, 30))  # of one person alone
    assert places & set(range(32, ITEMS))  # new
    assert not places & {LABELS, LABELS + 1, LABELS + 2}  # both have answered, or one has skipped it
    assert all("vote" in pick.reason for _, pick in picks)


def test_nobody_is_asked_again_while_one_person_works_alone(champion: tuple[Project, Champion]) -> None:
    project, _ = champion
    say(project, "ann", {place: ("cat", "dog")[place % 2] for place in range(LABELS, 30)})

    _, picks = chosen(project, name="active_lab", size=45)

    assert {item.task_id % 10_000 for item, _ in picks} == set(range(30, ITEMS))


def test_a_round_finds_the_like_of_given_tasks_first(champion: tuple[Project, Champion]) -> None:
    project, made = champion
    with transaction() as session:
        asked = like(session, project, f"{made.task_ids[3]}, {made.task_ids[20]}")

    report, picks = chosen(project, asked, name="margin")

    centred = made.vectors.astype(np.float64) - made.vectors[LABELS:].astype(np.float64).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    nearest = LABELS + (unit[LABELS:] @ unit[[3, 20]].T).argmax(axis=0)
    assert report["strategy"] == "similar"
    assert report["policy"] == "As asked: the like of 2 chosen items."
    assert {item.task_id % 10_000 for item, _ in picks[:2]} == set(nearest.tolist())


def test_a_round_finds_the_like_of_a_class_or_of_its_errors(champion: tuple[Project, Champion]) -> None:
    project, made = champion
    with transaction() as session:
        session.execute(sa.update(Item).where(Item.id <= 6).values(is_holdout=True))
        ids = session.scalars(sa.select(Item.id).order_by(Item.id).limit(6)).all()
    wrong = [n for n in range(6) if made.expected(n)[0] != made.head.classes[n % 2]]
    of_cats = [n for n in wrong if n % 2 == 0]

    by_class = chosen(project, Like(label="cat"), name="margin")[0]["policy"]
    by_errors = chosen(project, Like(errors=True), name="margin")[0]["policy"]
    by_both = chosen(project, Like(errors=True, label="cat"), name="margin")[0]["policy"]
    by_two = chosen(project, Like(items=(ids[0],), label="dog"), name="margin")[0]["policy"]

    assert by_class == "As asked: the like of 3 items labelled 'cat'."
    assert by_errors == f"As asked: the like of {len(wrong)} errors on the holdout."
    assert by_both == f"As asked: the like of {len(of_cats)} errors of 'cat' on the holdout."
    assert by_two == "As asked: the like of 1 chosen items and 3 items labelled 'dog'."


def test_the_command_asks_a_waiting_round_too_and_later_rounds_are_as_configured(
    champion: tuple[Project, Champion],
) -> None:
    project, made = champion
    one, two = made.task_ids[3], made.task_ids[20]

    answers = [CliRunner().invoke(app, ["round", "p", *more]) for more in ([], ["--like", f"{one},{two}"], [])]

    assert [answer.exit_code for answer in answers] == [0, 0, 0]
    with transaction() as session:
        [waiting] = session.scalars(sa.select(Round).where(Round.state == "waiting"))
        places = session.scalars(sa.select(Item.id).where(Item.task_id.in_((one, two))).order_by(Item.id)).all()
        assert Like.of(waiting.like) == Like(items=tuple(places))
        waiting.state = "done"
        assert request_round(session, project.id, "new_labels").like == {}


def test_what_is_not_there_is_refused_when_it_is_asked_for(champion: tuple[Project, Champion]) -> None:
    project, _ = champion
    with transaction() as session:
        with pytest.raises(NothingToLookFor, match="the task 7, 8"):
            like(session, project, "7,8")
        with pytest.raises(NothingToLookFor, match="'x' is no task's id"):
            like(session, project, "x")
        with pytest.raises(NothingToLookFor, match="'horse' is none of the classes"):
            like(session, project, label="horse")
        session.execute(sa.text("UPDATE model_versions SET state = 'retired'"))
        with pytest.raises(NothingToLookFor, match="no model yet"):
            like(session, project, errors=True)
        assert not like(session, project)
    with pytest.raises(NothingToLookFor, match="there are 0 errors"):
        chosen(project, Like(errors=True), name="margin")


@pytest.mark.parametrize("samples", ["bootstrap", "dropout", "laplace"])
def test_the_configuration_chooses_where_plausible_heads_come_from(
    champion: tuple[Project, Champion], samples: str
) -> None:
    project, _ = champion

    _, picks = chosen(project, name="bald", samples=samples)

    assert len(picks) == 8
    assert all(pick.utility is not None and pick.utility > 0 for _, pick in picks)


def test_items_with_many_votes_against_them_lead_the_next_batch_until_somebody_labels_them(
    champion: tuple[Project, Champion],
) -> None:
    project, made = champion

    def vote(place: int, *against: bool) -> None:
        with transaction() as session:
            votes = [Cast("v1", one, uri=made.uris[place], voter=str(who)) for who, one in enumerate(against)]
            cast(session, project, votes, lambda _version, hashes: [None] * len(hashes))

    vote(20, True, True, True, False)
    vote(30, True, True, True, True)
    vote(40, True, True, True, False, False, False)  # as many for it
    vote(50, True, True)  # too few
    vote(1, True, True, True)  # has a label

    _, picks = chosen(project, name="margin")
    say(project, "ann", {30: "cat", 20: None})
    _, later = chosen(project, name="margin")

    places = [item.task_id % 10_000 for item, _ in picks]
    assert places[:2] == [30, 20]
    assert [pick.reason for _, pick in picks[:2]] == [
        "4 of 4 users say that its prediction is wrong",
        "3 of 4 users say that its prediction is wrong",
    ]
    assert len(set(places)) == 8
    assert not {1, 20, 30} & {item.task_id % 10_000 for item, _ in later}
    assert not any("users" in pick.reason for _, pick in later)

"""A query answers with the code of a round: by its own strategy and budget, and nothing of the loop is disturbed."""

import io
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import (
    Alert,
    Annotation,
    Batch,
    Event,
    Item,
    ModelAdvice,
    ModelVersion,
    Pick,
    Project,
    Round,
    reading,
    transaction,
)
from backend.doctor import examine
from backend.errors import (
    LabelConflict,
    NoSuchStrategy,
    NothingToSeed,
    ProjectExists,
    RoundCancelled,
    TooManyQueries,
    UnknownItem,
    UnknownLabel,
)
from backend.pool.folders import digits
from backend.rounds import queue
from backend.rounds import round as the_round
from backend.rounds.labelling import Given, NewProject, Stored, make_project, store
from backend.rounds.pushes import Pushed, push_lines
from backend.rounds.queries import Query, ask
from backend.seed import seed
from backend.studio.labels import LabelTask
from tests.conftest import forget_process_state
from tests.services.images import CACHE

COUNT = 40


@pytest.fixture
def root(home: Path, encoders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the items are; a migrated database, and the encoder."""
    root = digits(CACHE).root
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(root))
    (home / "encoders").symlink_to(encoders)
    forget_process_state()
    queue.prepare_database()
    return root


def made(labels: tuple[str, ...] = (), **config: object) -> Project:
    given = {"name": "digits", "labels": labels, "encoder": {"precision": "fp32"}, **config}
    with transaction() as session:
        return make_project(session, NewProject.model_validate(given))


def push(project: Project, *lines: object) -> Pushed:
    return push_lines(project, io.BytesIO("\n".join(map(json.dumps, lines)).encode()))


def uris(count: int = COUNT) -> dict[str, str]:
    """Digits by their address, with the label of each."""
    data = digits(CACHE)
    step = len(data.train) // count
    named = zip(data.train.paths[::step], data.train.labels[::step], strict=True)
    return {str(path.relative_to(data.root)): str(label) for path, label in list(named)[:count]}


def answered(project: Project, query: Query) -> tuple[Round, list[tuple[str, Pick]]]:
    """The query's round as a worker runs it, and its picks in rank order."""
    with transaction() as session:
        number = ask(session, session.get_one(Project, project.id), query).number
    the_round.answer_query(project.id, number)
    with reading() as session:
        round_ = session.scalars(sa.select(Round).where(Round.project_id == project.id, Round.number == number)).one()
        rows = session.execute(
            sa.select(Item.uri, Pick)
            .join(Pick, Pick.item_id == Item.id)
            .join(Batch, Batch.id == Pick.batch_id)
            .where(Batch.round_id == round_.id)
            .order_by(Pick.rank)
        ).all()
    return round_, [(uri, pick) for uri, pick in rows]


def test_from_addresses_to_a_selection_to_labels_to_a_better_one(root: Path) -> None:
    project, known = made(), uris()
    pushed = push(project, *({"uri": uri, "shelf": 3} for uri in known))

    first, cold = answered(project, Query(12))
    with transaction() as session:
        there = session.get_one(Project, project.id)
        stored = store(session, there, [Given(known[uri], uri=uri, annotator="ann") for uri, _ in cold])
    second, warm = answered(project, Query(5, "margin"))
    third, again = answered(project, Query(5, "margin"))

    assert (pushed.added, pushed.known, pushed.refused) == (COUNT, 0, 0)
    assert stored == Stored(12, 0, 0)
    assert first.state == second.state == "done"
    assert len({uri for uri, _ in cold}) == 12
    assert all(pick.reason and pick.prediction is None for _, pick in cold)
    assert {uri for uri, _ in warm}.isdisjoint({uri for uri, _ in cold})
    utilities = [pick.utility for _, pick in warm]
    assert utilities == sorted(utilities, reverse=True)
    assert all(pick.prediction for _, pick in warm)
    assert {pick.nearest_id for _, pick in warm} <= {pick.item_id for _, pick in cold}
    assert third.report["version"] == second.report["version"] == "v1"  # nothing new to learn
    assert [uri for uri, _ in again] == [uri for uri, _ in warm]
    with reading() as session:
        (version,) = session.scalars(sa.select(ModelVersion))
        (advice,) = session.get_one(ModelAdvice, version.id).signals
        states = set(session.scalars(sa.select(Batch.state)))
        held_out = session.scalars(sa.select(Item).where(Item.is_holdout)).all()
        there = session.get_one(Project, project.id)
    assert version.lineage["labels"] == 12
    assert advice["says_stop"] is None
    assert states == {"answered"}
    assert held_out == []
    assert set(LabelTask.parse(there.label_config).choices) == {known[uri] for uri, _ in cold}


def test_a_query_lists_the_pool_where_it_is_and_says_why_it_cannot(root: Path) -> None:
    project = made(pool={"source": "folder", "path": str(root / "train" / "7")})
    lost = made(pool={"source": "folder", "path": str(root / "nowhere")}, name="lost")
    with transaction() as session:
        number = ask(session, session.get_one(Project, lost.id), Query(3)).number

    _, picks = answered(project, Query(4, "random"))
    with pytest.raises(Exception, match="nowhere"):
        the_round.answer_query(lost.id, number)

    assert len(picks) == 4
    assert all("train/7/" in uri for uri, _ in picks)
    with reading() as session:
        failed = session.scalars(sa.select(Round).where(Round.project_id == lost.id)).one()
        assert (failed.state, session.scalars(sa.select(Alert)).all()) == ("failed", [])
        assert "nowhere" in (failed.failure or "")
        assert not queue.is_resting(session, lost.id)


def test_a_round_of_such_a_project_publishes_here_and_labels_count_towards_the_next(root: Path) -> None:
    project, known = made(tuple("0123456789"), batch={"size": 10, "first_holdout": 2}), uris()
    push(project, *({"uri": uri} for uri in known))
    answered(project, Query(3))
    with transaction() as session:
        number = queue.request_round(session, project.id, "api").number

    the_round._in_order(project.id, number)

    with reading() as session:
        batch = session.scalars(sa.select(Batch).where(Batch.state == "published")).one()
        rows = session.execute(sa.select(Item.uri, Pick).join(Item).where(Pick.batch_id == batch.id)).all()
    assert len(rows) == 10
    assert sum(pick.is_random_slice for _, pick in rows) == 2  # the first batch's share, whatever was asked before
    with transaction() as session:
        there = session.get_one(Project, project.id)
        store(session, there, [Given(known[uri], uri=uri) for uri, _ in rows[:8]])
        assert queue.due_trigger(session, there) == "batch_runs_out"
        assert len(session.scalars(sa.select(Event)).all()) == 8
    answered(project, Query(3))
    with reading() as session:
        assert queue.due_trigger(session, project) == "batch_runs_out"  # a query leaves the events to the round


def test_queries_wait_in_line_each_by_itself_beside_the_round_that_waits(root: Path) -> None:
    project = made()
    with transaction() as session:
        plain = queue.request_round(session, project.id, "api").number
        asked = [ask(session, project, Query(budget)).number for budget in (1, 2, 2)]
        again = queue.request_round(session, project.id, "api").number
        queries = [Query.of(one) for one in session.scalars(sa.select(Round).order_by(Round.number))]

    assert (plain, asked, again) == (1, [2, 3, 4], 1)
    assert queries == [None, Query(1), Query(2), Query(2)]
    with transaction() as session, pytest.raises(NoSuchStrategy, match="margin"):
        ask(session, project, Query(1, "margn"))
    with transaction() as session:
        for _ in range(queue.MOST_WAITING - len(asked)):
            ask(session, project, Query(1))
        with pytest.raises(TooManyQueries):
            ask(session, project, Query(1))


def test_a_push_is_idempotent_and_refuses_what_can_never_be_read(root: Path) -> None:
    project = made(pool={"source": "api", "allow_buckets": ["mine/pool"]})
    good = ["https://example.org/a.jpg", "s3://mine/pool/b.jpg", "train/7/00000.png", "ftp://example.org/c.jpg"]
    bad = [
        "http://127.0.0.1/a.jpg", "http://2130706433/", "ftp://10.0.0.1/x.jpg", "s3://theirs/b.jpg", "s3://mine/b.jpg",
        "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "data:image/png;base64,AA", "gopher://x/y",
        "/data/upload/1/a.jpg", "http://[", "", "a\0b", "ftp://user:pw@example.org/x",
    ]  # fmt: skip

    first = push(project, *({"uri": uri} for uri in good))
    second = push(project, *({"uri": uri} for uri in [*good, *bad, good[0]]), {"url": "x"}, "no object")
    broken = push_lines(project, io.BytesIO(b'{"uri": "https://example.org/d.jpg"}\n{"uri": \xff}\n{"uri'))

    assert (first.added, first.known, first.refused) == (4, 0, 0)
    assert (second.added, second.known, second.refused) == (0, 5, len(bad) + 2)
    assert (broken.added, broken.refused) == (1, 2)
    assert not any("pw@" in line for line in second.reasons)


def test_texts_are_pushed_as_they_are(root: Path) -> None:
    project = made(("a", "b"), kind="text", is_inline=True)

    pushed = push(project, {"text": "one"}, {"text": "two\ud800"}, {"text": " "}, {"uri": "three"})

    with reading() as session:
        texts = session.scalars(sa.select(Item.uri).order_by(Item.id)).all()
    assert (pushed.added, pushed.refused) == (1, 3)
    assert texts == ["one"]


def test_labels_are_kept_all_or_none_and_once(root: Path) -> None:
    project = made(("cat", "dog"))
    push(project, {"uri": "https://example.org/a.jpg"}, {"uri": "https://example.org/b.jpg"})
    a, b = "https://example.org/a.jpg", "https://example.org/b.jpg"

    def say(*given: Given) -> Stored:
        with transaction() as session:
            return store(session, session.get_one(Project, project.id), given)

    assert say(Given("cat", uri=a, annotator="ann", id=7), Given("dog", uri=b, annotator="ann")) == Stored(2, 0, 0)
    assert say(Given("cat", uri=a, annotator="ann", id=7), Given("dog", uri=b, annotator="ann")) == Stored(0, 0, 2)
    assert say(Given("dog", uri=a, annotator="ann", id=7), Given("cat", uri=b, annotator="ben")) == Stored(1, 1, 0)
    with pytest.raises(UnknownLabel, match="cow"):
        say(Given("cat", uri=b, annotator="cleo"), Given("cow", uri=a))
    with pytest.raises(UnknownItem, match=r"labels\.1"):
        say(Given("cat", uri=b, annotator="cleo"), Given("cat", uri="https://example.org/c.jpg"))
    with pytest.raises(LabelConflict, match="another item"):
        say(Given("cat", uri=b, annotator="cleo", id=7))
    with reading() as session:
        rows = session.execute(sa.select(Annotation.external_id, Annotation.label, Annotation.annotator)).all()
    assert sorted(map(tuple, rows)) == [(7, "dog", "ann"), (8, "dog", "ann"), (9, "cat", "ben")]


def test_making_a_project_again_finds_it_and_another_one_of_its_name_is_refused(root: Path) -> None:
    first = made(("cat", "dog"))

    assert made(("cat", "dog")).id == first.id
    with pytest.raises(ProjectExists):
        made(("cat", "cow"))
    with pytest.raises(ProjectExists):
        made(("cat", "dog"), seed=3)


def test_a_cancelled_query_ends_where_it_notices_and_is_no_failure(root: Path) -> None:
    project = made()
    push(project, *({"uri": uri} for uri in uris(12)))
    with transaction() as session:
        waiting, running = (ask(session, session.get_one(Project, project.id), Query(3)).number for _ in range(2))
        session.execute(sa.update(Round).where(Round.number == running).values(state="running"))

    with transaction() as session:
        states = [queue.cancel(session, project.id, number) for number in (waiting, running, 99)]
        assert [one and one.state for one in states] == ["cancelled", "running", None]
    for number in (waiting, running):
        with pytest.raises(RoundCancelled):
            the_round.answer_query(project.id, number)

    with reading() as session:
        assert set(session.scalars(sa.select(Round.state))) == {"cancelled"}
        assert session.scalars(sa.select(Batch)).all() == []
        assert set(session.scalars(sa.select(Item.state))) == {"new"}
        assert session.scalars(sa.select(Alert)).all() == []


def test_the_doctor_asks_no_label_studio_of_such_a_project(root: Path) -> None:
    project = made()
    push(project, *({"uri": uri} for uri in uris(3)))

    found = [one for one in examine(project.name) if one.check.startswith("digits: ")]

    assert {one.check for one in found} == {"digits: source", "digits: items", "digits: rounds"}
    assert not any(one.is_fault for one in found)
    with pytest.raises(NothingToSeed, match="make_project"):
        seed(project.settings)

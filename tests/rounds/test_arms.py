"""Other ways to label beside a project's curve: found where they were kept, once for each question."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.backtest import source
from backend.backtest.comparison import Question, compare
from backend.database import Comparison, Project, project_named, reading, transaction
from backend.rounds import arms
from backend.rounds.arms import ArmCurve, comparisons, keep
from backend.rounds.encoding import Embeddings
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from tests.web.played import play, with_answers


def arm(name: str, count: int = 3) -> ArmCurve:
    some = [step / count for step in range(count)]
    return ArmCurve(name, [10 * (step + 1) for step in range(count)], some, some, some)


@pytest.fixture
def project_id(store: str) -> int:
    assert store
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"})
        session.add(project)
    return project.id


def test_a_question_has_one_answer_and_the_oldest_backtests_go(project_id: int) -> None:
    for seed in (*range(12), 11):
        with transaction() as session:
            keep(session, project_id, "backtest", "random", [arm(f"of {seed}")], {"seed": seed, "strategies": ("a",)})
            keep(session, project_id, "demo", "random", [arm(f"demo {seed}")], {})

    with reading() as session:
        found, demo = (comparisons(session, project_id, kind) for kind in ("backtest", "demo"))
    assert [one.arms[0].name for one in found] == [f"of {seed}" for seed in range(11, 1, -1)]
    assert len(found) == arms.MOST_BACKTESTS
    assert [one.arms[0] for one in demo] == [arm("demo 11")]


def test_a_long_curve_is_thinned_and_keeps_its_end(project_id: int) -> None:
    with transaction() as session:
        keep(session, project_id, "demo", "random", [arm("random", 250)], {})

    with reading() as session:
        (kept,) = comparisons(session, project_id, "demo")
    assert len(kept.arms[0].labels) <= arms.MOST_STEPS
    assert (kept.arms[0].labels[-1], kept.arms[0].accuracy[-1]) == (2_500, 249 / 250)


def test_a_backtest_on_a_projects_labels_is_kept_for_its_pages(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_database()
    played = play(home / "data", hostile=False)
    with transaction() as session:
        session.query(Comparison).delete()
    with_answers(played)
    digest = f"{played.project_id:064x}"
    spec = SimpleNamespace(digest=digest, dims=12)
    stored = Embeddings(spec, VectorStore(home / "vectors", digest, 12))  # type: ignore[arg-type]
    monkeypatch.setattr(source, "open_embeddings", lambda _project: stored)
    question = Question(("margin",), seeds=2, batch=15, labels=30)

    told = compare(played.name, question, tmp_path / "out", 1, print, lambda *_: None)

    with reading() as session:
        (kept,) = comparisons(session, project_named(session, played.name).id, "backtest")
    assert {one.name for one in kept.arms} == {"random", "margin"}
    assert all(one.labels == [15, 30] and one.low <= one.accuracy <= one.high for one in kept.arms)
    assert kept.advice in told
    assert kept.facts["labels_of"] == played.name

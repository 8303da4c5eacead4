"""Wrong labels are found and asked for again; what people do with predictions is counted, and a fall is told."""

import datetime as dt

import numpy as np
import pytest
import sqlalchemy as sa
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_label_issues as find_set_issues
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from backend.database import Annotation, Batch, Pick, Round, now, reading, transaction
from backend.errors import NothingToLookFor
from backend.learning.quality import number_suspects, set_suspects, suspects
from backend.learning.set_training import fit_sets, held_out_sets
from backend.monitoring.acceptance import Answer, check_acceptance, tabulate
from backend.monitoring.suspicion import believed
from backend.rounds import choose, drift, learn
from backend.rounds.source import _asked_again
from tests.monitoring.conftest import Played
from tests.monitoring.test_commands import run


def test_suspects_are_cleanlabs() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 400)
    probabilities = random.dirichlet(np.ones(4), 400) * 0.5
    probabilities[np.arange(400), truth] += 0.5
    labels = np.where(random.uniform(size=400) < 0.1, random.integers(0, 4, 400), truth)

    found = suspects(probabilities, labels)

    issues = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert [one.row for one in found] == issues.tolist()
    assert len(found) > 10
    assert np.mean([labels[one.row] != truth[one.row] for one in found]) > 0.8


def test_suspected_sets_are_cleanlabs_label_by_label() -> None:
    random = np.random.default_rng(1)
    chances = random.beta(0.5, 0.8, size=(300, 4))
    truth = random.uniform(size=chances.shape) < chances
    is_wrong = random.uniform(size=chances.shape) < 0.04
    given_, names = truth ^ is_wrong, np.arange(4)
    said = np.clip(np.where(truth, chances**0.3, chances**3), 0.01, 0.99)

    found = set_suspects(said, given_)

    given_names = [names[row].tolist() for row in given_]
    issues = find_set_issues(given_names, said, filter_by="confident_learning", n_jobs=1)
    assert {one.row for one in found} == set(np.flatnonzero(issues).tolist())
    assert [one.self_confidence for one in found] == sorted(one.self_confidence for one in found)
    told = {(one.row, label) for one in found for label, _ in (*one.missing, *one.surplus)}
    assert np.mean([is_wrong[where] for where in told]) > 0.5
    assert all(not given_[one.row, label] for one in found for label, _ in one.missing)
    assert all(given_[one.row, label] for one in found for label, _ in one.surplus)


def test_what_is_said_of_a_set_does_not_know_the_set() -> None:
    random = np.random.default_rng(2)
    x, truth = random.normal(size=(120, 40)).astype(np.float32), random.uniform(size=(120, 3)) < 0.4
    report = fit_sets(x, truth, ("a", "b", "c"))

    known, unseen = report.head.predict(x), held_out_sets(report.head, x, truth, 1e-3)

    assert unseen.shape == (120, 3)
    assert known[truth].mean() > known[~truth].mean()
    assert unseen[truth].mean() < unseen[~truth].mean() + 0.1  # noise teaches nothing
    assert np.array_equal(unseen, held_out_sets(report.head, x, truth, 1e-3))


def test_a_number_is_suspected_by_the_outlier_test_with_false_discoveries_controlled() -> None:
    random = np.random.default_rng(0)
    deviation = random.uniform(0.5, 2, size=80)
    truth = random.normal(size=80) * deviation
    truth[[4, 40]] += (12, -9)
    said = np.stack([np.zeros(80), deviation], axis=1)

    found = number_suspects(said, truth)

    z = truth / deviation
    p = [2 * t.sf(abs(z[at]) / np.sqrt(np.square(np.delete(z, at)).mean()), 79) for at in range(80)]
    ranked = np.argsort(p)
    most = max(place for place, at in enumerate(ranked, start=1) if p[at] <= 0.05 * place / 80)
    assert [one.row for one in found] == ranked[:most].tolist()
    assert {4, 40} <= {one.row for one in found}
    assert found[0].p == pytest.approx(80 * p[found[0].row])
    assert (found[0].given, found[0].said) == (truth[found[0].row], 0)


def test_numbers_that_are_right_are_rarely_suspected_and_wrong_ones_do_not_hide_each_other() -> None:
    random, alarms, false, hits = np.random.default_rng(3), 0, [], 0
    for _ in range(150):
        truth, said = random.normal(size=200), np.stack([np.zeros(200), np.full(200, 0.3)], axis=1)
        alarms += bool(number_suspects(said, truth))
        truth[:10] += 6
        rows = np.array([one.row for one in number_suspects(said, truth)])
        false.append((rows >= 10).mean() if len(rows) else 0.0)
        hits += int((rows < 10).sum())

    assert alarms <= 14  # 5 % of 150 would be 7.5
    assert np.mean(false) <= 0.06
    assert hits / 1_500 > 0.6


@settings(max_examples=20, deadline=None)
@given(arrays(np.float64, 12, elements=st.integers(-30, 30).map(float)), st.permutations(range(12)), st.integers(-3, 3))
def test_suspected_numbers_follow_neither_the_unit_nor_the_order(
    truth: np.ndarray, order: list[int], power: int
) -> None:
    said, unit = np.stack([np.zeros(12), np.linspace(1, 2, 12)], axis=1), 2.0**power

    found = number_suspects(said, truth)

    same = number_suspects(said[order] * [unit, 5], truth[order] * unit)
    assert {order[one.row] for one in same} == {one.row for one in found}
    assert all(one.p <= 0.05 for one in found)


@pytest.fixture
def doubted(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    """100 labels, of which those of items 3, 4 and 7 are wrong; 20 of the holdout, the first one of which is wrong."""
    for module in (choose, drift):
        monkeypatch.setattr(module, "open_embeddings", learn.open_embeddings)
    monkeypatch.setattr(drift, "_facts", lambda *_: [])
    played.hold_out(range(100, 120))
    names = [("cat", "dog")[cluster] for cluster in played.truth]
    for place in (3, 4, 7, 100):
        names[place] = "dog" if names[place] == "cat" else "cat"
    played.label(range(100), names=names[:100])
    played.label(range(100, 120), names=names[100:120])
    played.learn()
    return played


def ask(played: Played, **like: object) -> Batch:
    played.rounds += 1
    with transaction() as session:
        common = {"number": played.rounds, "workflow_id": f"r{played.rounds}", "state": "running", "like": dict(like)}
        session.add(Round(project_id=played.project_id, **common))
    choose.choose(played.project_id, played.rounds)
    with reading() as session:
        return session.scalars(sa.select(Batch).order_by(Batch.id.desc())).first()


def test_labels_that_the_model_contradicts_become_a_batch_like_any_other(doubted: Played) -> None:
    batch = ask(doubted, checks=True)

    with reading() as session:
        picks = session.scalars(sa.select(Pick).where(Pick.batch_id == batch.id).order_by(Pick.rank)).all()
        again = _asked_again(session, batch, is_new=True)
    wrong = {doubted.items[place] for place in (3, 4, 7, 100)}
    assert batch.strategy == "check_labels"
    assert len(wrong & {pick.item_id for pick in picks}) >= 3
    assert len(picks) <= 6
    assert {pick.item_id for pick in picks} == again  # so publishing asks for another label, and shows no prediction
    assert "a model that has not seen this label says" in picks[0].reason
    assert "labels that the model contradicts" in batch.policy


def test_without_a_model_there_is_nothing_to_check(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "open_embeddings", learn.open_embeddings)

    with pytest.raises(NothingToLookFor, match="no model yet"):
        ask(played, checks=True)


def answers(count: int, share: float, random: np.random.Generator, sure: float = 0.9) -> list[Answer]:
    outcomes = np.where(random.uniform(size=count) < share, "accepted", "changed")
    return [Answer("v1", "cat", sure, outcome, 2.0) for outcome in outcomes]


def test_a_fall_is_told_and_harder_items_are_not() -> None:
    random, quiet = np.random.default_rng(1), 0
    for _ in range(60):
        quiet += bool(believed(check_acceptance(answers(150, 0.9, random) + answers(100, 0.6, random, 0.6), new=100)))
    fallen = believed(check_acceptance(answers(150, 0.9, random) + answers(100, 0.6, random), new=100))

    assert quiet <= 5
    assert [one.code for one in fallen] == ["acceptance_fell"]
    assert check_acceptance(answers(250, 0.5, random), new=0) == []


def test_answers_are_counted_per_version_and_class() -> None:
    given = [
        *[Answer("v10", "cat", 0.9, "accepted", seconds) for seconds in (1.0, 3.0, 5.0)],
        Answer("v10", "dog", 0.9, "changed", None),
        Answer("v10", "dog", 0.9, "skipped", None),
        Answer("v9", "cat", 0.9, "accepted", 1.0),
    ]

    rows = tabulate(given)

    assert [(row.version, row.label, row.shown) for row in rows] == [
        ("v10", "", 5), ("v10", "cat", 3), ("v10", "dog", 2), ("v9", "", 1), ("v9", "cat", 1)
    ]  # fmt: skip
    assert (rows[0].accepted, rows[0].changed, rows[0].skipped, rows[0].share) == (3, 1, 1, 0.75)
    assert rows[1].median_s == 3.0
    assert rows[0].low < 0.75 < rows[0].high


def test_a_round_counts_what_people_did_alarms_and_asks_for_another_round(
    doubted: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted.configure(("cat", "dog"), batch={"size": 60, "holdout_share": 0}, feedback={"round_on_fall": True})
    asked: list[str] = []
    monkeypatch.setattr(drift, "request_round", lambda _session, _project, trigger: asked.append(trigger))

    def people_answer(batch: Batch, is_contrary: bool) -> None:
        with transaction() as session:
            for pick in session.scalars(sa.select(Pick).where(Pick.batch_id == batch.id)):
                doubted.annotations += 1
                said = pick.prediction["label"]
                label = {"cat": "dog", "dog": "cat"}[said] if is_contrary else said
                at = now() + dt.timedelta(seconds=1)
                known = {"external_id": doubted.annotations, "created_at": at, "updated_at": at, "lead_time_s": 4.0}
                session.add(
                    Annotation(project_id=doubted.project_id, item_id=pick.item_id, label=label, annotator="1", **known)
                )

    people_answer(ask(doubted), is_contrary=False)
    calm = drift.watch(doubted.project_id, doubted.rounds)
    people_answer(ask(doubted), is_contrary=True)
    alarmed = drift.watch(doubted.project_id, doubted.rounds)

    table = run("models", "accepted", "p")
    assert calm["drifted"] == []
    assert "acceptance_fell" in alarmed["drifted"]
    assert asked == ["acceptance_fell"]
    assert ("warn", "acceptance_fell") in doubted.alerts()
    assert "v1                   accepted 75% (95 %: 65% to 83%) of 80, 20 changed" in table
    assert "4.0 s" in table

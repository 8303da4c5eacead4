"""Heads for items with any number of labels: held against scikit-learn, calibrated, stored, measured by brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from backend.errors import HeadNotForTask, HeadUnreadable
from backend.learning.contrast import contrast_sets
from backend.learning.heads import Head
from backend.learning.set_evaluate import evaluate_sets, is_worse
from backend.learning.set_heads import SetHead
from backend.learning.set_training import fit_sets, thresholds
from backend.learning.targets import target_of, told
from backend.questions import question, set_label
from backend.settings import HeadSection
from strategies import Task

NAMES = ("sky", "sea", "ship", "tree")


def world(n: int, seed: int = 0, dims: int = 12) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Embeddings (n, d), and labels that depend on them by one direction each; the last one nobody has."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dims)).astype(np.float32)
    directions = np.random.default_rng(99).normal(size=(dims, 4))
    truth = x @ directions + rng.normal(size=(n, 4)) > np.array([0.0, 1.0, 4.0, 1e9])
    return x, truth


def test_a_label_by_itself_is_learned_as_another_library_learns_it() -> None:
    x, truth = world(400)
    report = fit_sets(x, truth[:, :2], NAMES[:2], seed=3)

    said = report.head.logits(x) * report.head.temperature
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for label in range(2):
        have = truth[:, label].sum()
        aim = np.where(truth[:, label], (have + 1) / (have + 2), 1 / (len(x) - have + 2))
        other = LogisticRegression(C=1 / (len(x) * report.penalty * x.shape[1]), tol=1e-8, max_iter=5_000)
        other.fit(np.concatenate([z, z]), np.repeat([1, 0], len(x)), np.concatenate([aim, 1 - aim]))
        assert np.abs(other.decision_function(z) - said[:, label]).max() < 0.05


def test_probabilities_are_each_labels_own_and_honest_on_items_that_were_not_seen() -> None:
    x, truth = world(600)
    unseen, answers = world(3_000, seed=1)
    head = fit_sets(x, truth, NAMES).head

    said = head.predict(unseen)

    assert said.shape == (3_000, 4)
    assert ((said >= 0) & (said <= 1)).all()
    assert np.ptp(said.sum(axis=1)) > 1
    measured = evaluate_sets(said, told(head, said), answers, NAMES)
    assert measured.calibration_error < 0.03
    assert measured.micro_f1 > 0.8
    assert said[:, 3].max() < 0.05


@pytest.mark.parametrize("balanced", [False, True])
def test_the_same_seed_gives_the_same_bits(balanced: bool) -> None:
    x, truth = world(150)
    one, other = (fit_sets(x, truth, NAMES, seed=5, balanced=balanced).head for _ in range(2))

    assert one.digest == other.digest
    assert one.digest != fit_sets(x, truth, NAMES, seed=5, balanced=not balanced).head.digest


@pytest.mark.parametrize("labels", [2, 20, 40])
def test_few_labels_and_labels_that_all_or_none_have_give_a_head_that_knows_how_little_it_knows(labels: int) -> None:
    x, truth = world(labels)
    truth[:, 0] = True
    report = fit_sets(x, truth, NAMES)

    said = report.head.predict(world(200, seed=2)[0])

    assert (said[:, 0] > 0.5).all()
    assert (said[:, 3] < 0.5).all()
    assert np.isfinite(report.head.logits(x)).all()
    assert (report.out_of_fold is None) == (labels < 30)


def test_out_of_fold_rows_are_rows_of_what_was_given_and_broken_ones_are_left_out() -> None:
    x, truth = world(120)
    broken = x.copy()
    broken[[0, 7]] = np.nan
    report = fit_sets(broken, truth, NAMES)

    assert report.dropped == 2
    assert report.out_of_fold is not None
    assert not {0, 7} & set(report.out_of_fold.rows.tolist())
    known = evaluate_sets(
        report.out_of_fold.probabilities, report.out_of_fold.probabilities >= 0.5, truth[report.out_of_fold.rows], NAMES
    )
    assert known.micro_f1 > 0.7


def test_a_head_survives_its_file_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    x, truth = world(100)
    head = fit_sets(x, truth, NAMES).head
    path = tmp_path / "head.safetensors"
    head.save(path)

    read = Head.load(path, head.digest)

    assert isinstance(read, SetHead)
    assert read.task is Task.MULTI_LABEL
    assert np.array_equal(read.predict(x), head.predict(x))
    assert [read.label_of(row) for row in read.predict(x)] == [head.label_of(row) for row in head.predict(x)]
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(HeadUnreadable):
        Head.load(path)


def test_what_a_head_tells_is_the_set_above_its_thresholds_and_the_confidence_that_it_is_right() -> None:
    head = SetHead(
        NAMES[:3], np.zeros(1), np.ones(1), np.zeros((1, 3)), np.zeros(3), thresholds=np.array([0.5, 0.2, 0.5])
    )

    said = np.array([0.9, 0.3, 0.4], np.float32)

    assert head.label_of(said) == set_label(["sea", "sky"])
    assert head.confidence(said) == pytest.approx(0.9 * 0.3 * 0.6)
    assert head.label_of(np.zeros(3, np.float32)) == "[]"


def test_thresholds_tell_a_rare_label_while_it_is_improbable() -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(0.4, 2, size=(40_000, 1))
    truth = rng.random(chances.shape) < chances

    (found,) = thresholds(chances, truth)

    best = max(np.linspace(0.02, 0.98, 97), key=lambda at: f1_score(truth[:, 0], chances[:, 0] >= at))
    assert found == pytest.approx(best, abs=0.03)
    assert thresholds(chances[:20], np.zeros((20, 1), bool)).tolist() == [0.5]


SETS = st.integers(1, 30).flatmap(lambda n: st.tuples(*(arrays(bool, (n, 3)) for _ in range(2))))


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_measures_are_those_of_their_definitions(sets: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    told, truth = sets
    chances = np.where(told, 0.8, 0.3)

    found = evaluate_sets(chances, told, truth, NAMES[:3])

    pairs = [(t, a) for given_, answer in zip(told, truth, strict=True) for t, a in zip(given_, answer, strict=True)]
    hits = sum(t and a for t, a in pairs)
    wrong = sum(t != a for t, a in pairs)
    assert found.micro_f1 == pytest.approx(2 * hits / (2 * hits + wrong) if hits + wrong else 1)
    there = (told | truth).any(axis=0)
    each = f1_score(truth, told, average=None, zero_division=0)
    assert found.macro_f1 == pytest.approx(np.atleast_1d(each)[there].mean() if there.any() else 1)
    assert found.accuracy == pytest.approx(np.mean([list(t) == list(a) for t, a in zip(told, truth, strict=True)]))
    for name in ("accuracy", "micro_f1", "macro_f1"):
        interval: Any = getattr(found, f"{name}_interval")
        assert 0 <= interval.low <= interval.high <= 1 + 1e-9
    for at, one in enumerate(found.classes):
        recall = None if not truth[:, at].any() else (told & truth)[:, at].sum() / truth[:, at].sum()
        assert one.recall == (None if recall is None else pytest.approx(recall))
        assert one.recall is None or one.recall_interval.low - 1e-9 <= one.recall <= one.recall_interval.high + 1e-9


def test_a_model_that_tells_worse_sets_is_found_and_one_that_tells_the_same_is_not() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random((200, 5)) < 0.3
    good, bad = truth ^ (rng.random(truth.shape) < 0.05), truth ^ (rng.random(truth.shape) < 0.2)

    assert is_worse(bad, good, truth)
    assert not is_worse(good, bad, truth)
    assert not is_worse(good, good, truth)


def test_two_models_of_sets_are_compared_measure_by_measure() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random((150, 4)) < [0.3, 0.5, 0.2, 0]
    good, bad = truth ^ (rng.random(truth.shape) < 0.05), truth ^ (rng.random(truth.shape) < 0.3)
    chances = [np.where(told, 0.9, 0.1) for told in (bad, good)]

    found = contrast_sets(*chances, (bad, good), truth, NAMES)

    exact = [(told == truth).all(axis=1).mean() for told in (bad, good)]
    assert found.comparison.difference == pytest.approx(exact[0] - exact[1])
    assert found.comparison.is_worse
    f1 = [f1_score(truth, told, average=None, zero_division=0).mean() for told in (bad, good)]
    assert found.macro_f1.value == pytest.approx(f1[0] - f1[1])
    assert found.macro_f1.interval.low < found.macro_f1.value < found.macro_f1.interval.high < 0
    assert found.log_loss.interval.low > 0
    assert {one.name for one in found.classes} == set(NAMES[:3])
    assert all(one.recall.value < 0 for one in found.classes)
    assert any(one.is_real for one in found.classes)
    same = contrast_sets(chances[1], chances[1], (good, good), truth, NAMES)
    assert same.macro_f1.value == same.macro_f1.interval.low == same.calibration_error.interval.high == 0


def test_labels_become_sets_and_what_cannot_learn_them_is_refused() -> None:
    target = target_of(question(Task.MULTI_LABEL, NAMES))

    truth = target.encode([set_label(["sea", "sky"]), "[]", "ship"])

    assert truth.tolist() == [[True, True, False, False], [False] * 4, [False, False, True, False]]
    assert not target.is_enough(["[]", "[]"])
    assert target.is_enough(["[]", set_label(["sky"])])
    for section in (HeadSection(kind="mlp"), HeadSection(tune_s=5)):
        with pytest.raises(HeadNotForTask, match="multi-label"):
            target.check(section)

"""A closer look: its intervals hold what they promise, and only slices that are worse are called so."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import fisher_exact, ttest_1samp, ttest_ind

from backend.learning.analysis import Analysis, analyse
from backend.learning.contrast import contrast
from backend.learning.evaluate import calibration_error, evaluate
from backend.learning.look import look_at_numbers, look_at_sets, read
from backend.learning.sensitivity import CHANGES, change
from backend.learning.set_evaluate import evaluate_sets
from backend.learning.set_heads import SetHead
from backend.learning.slices import Members, find_number_slices, find_slices, members_of
from backend.learning.targets import target_of
from backend.questions import question
from strategies import Task

CLASSES = ("cat", "dog", "fox")


def drawn(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 3) and labels that follow them: perfectly calibrated."""
    probabilities = random.dirichlet(np.ones(3) * 0.7, n)
    return probabilities, (random.uniform(size=(n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    truth = evaluate(*drawn(200_000, random), CLASSES)

    trials = [analyse(*drawn(150, random), CLASSES, seed=trial) for trial in range(60)]

    for name in ("accuracy", "macro_f1", "log_loss"):
        true = getattr(truth, name)
        inside = [getattr(one, name).interval.low <= true <= getattr(one, name).interval.high for one in trials]
        assert sum(inside) >= 52, name  # of 60; 95 % would be 57
    assert sum(one.calibration_error.interval.low == 0 for one in trials) >= 52
    exceeded = [one.calibration_error.value > one.chance_calibration_error for one in trials]
    assert sum(exceeded) <= 8


def test_a_boastful_model_is_told_from_chance() -> None:
    random = np.random.default_rng(1)
    probabilities, labels = drawn(400, random)
    sharpened = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)

    found = analyse(sharpened, labels, CLASSES)

    assert found.calibration_error.value == calibration_error(sharpened, labels)
    assert found.calibration_error.interval.low > 0
    assert found.calibration_error.value > found.chance_calibration_error
    assert sum(one.items for one in found.reliability) == 400


def test_confusions_and_classes_count_what_happened() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 1, 1, 0]]

    found = analyse(probabilities, np.array([0, 0, 0, 1, 1, 1]), CLASSES)

    assert [(one.label, one.predicted, one.items) for one in found.confusions] == [("cat", "dog", 1), ("dog", "cat", 1)]
    assert found.confusions[0].share.value == pytest.approx(1 / 3)
    assert [(one.labels, one.predicted) for one in found.classes] == [(3, 3), (3, 3), (0, 0)]
    assert found.classes[2].recall is None
    assert Analysis.read(found.as_dict()) == found


def test_the_slice_that_is_worse_is_found_among_many_that_are_not() -> None:
    random = np.random.default_rng(2)
    correct = random.uniform(size=400) < 0.85
    camera = random.integers(0, 20, 400)
    correct[camera == 7] = random.uniform(size=int((camera == 7).sum())) < 0.3
    noise = [one for at in range(10) for one in members_of(f"n{at}", [str(v) for v in random.integers(0, 5, 400)])]
    mine = members_of("camera", [f"c{value}" for value in camera])

    found = find_slices(correct, [*noise, *mine])

    assert [(one.field, one.value) for one in found if one.is_worse] == [("camera", "c7")]
    worst, inside = found[0], camera == 7
    counts = [[int((~correct & inside).sum()), int((correct & inside).sum())],
              [int((~correct & ~inside).sum()), int((correct & ~inside).sum())]]  # fmt: skip
    assert worst.p == pytest.approx(fisher_exact(counts, alternative="greater").pvalue)
    assert worst.difference_interval.high < 0
    assert worst.difference == pytest.approx(correct[inside].mean() - correct[~inside].mean())


def test_the_slice_with_larger_errors_is_found_and_measured_as_other_libraries_measure_it() -> None:
    random = np.random.default_rng(2)
    errors, camera = random.exponential(size=300), random.integers(0, 15, 300)
    errors[camera == 7] += 2
    noise = [one for at in range(6) for one in members_of(f"n{at}", [str(v) for v in random.integers(0, 5, 300)])]
    mine = members_of("camera", [f"c{value}" for value in camera])

    found = find_number_slices(errors, [*noise, *mine])

    inside = camera == 7
    assert [(one.field, one.value) for one in found if one.is_worse] == [("camera", "c7")]
    worst, own = found[0], ttest_1samp(errors[inside], 0).confidence_interval()
    apart = ttest_ind(errors[inside], errors[~inside], equal_var=False).confidence_interval()
    assert worst.mae == pytest.approx(errors[inside].mean())
    assert (worst.interval.low, worst.interval.high) == pytest.approx((own.low, own.high))
    assert (worst.difference_interval.low, worst.difference_interval.high) == pytest.approx((apart.low, apart.high))
    assert find_number_slices(errors, [*noise, *mine]) == found


def test_the_p_of_a_slice_of_numbers_is_the_share_of_all_slices_of_its_size_that_are_as_bad() -> None:
    errors = np.array([0.1, 0.4, 0.2, 3.0, 1.1, 0.7, 0.2, 2.2, 0.9, 0.05])

    for rows in ([3, 7, 4], [0, 3], [0, 1, 2, 5, 6]):
        (found,) = find_number_slices(errors, [Members("a", "b", np.array(rows))])
        every = [errors[list(some)].sum() for some in combinations(range(10), len(rows))]
        assert found.p == pytest.approx(np.mean(np.array(every) >= errors[rows].sum() - 1e-9), abs=0.035)


def test_slices_of_numbers_without_a_difference_are_rarely_called_worse() -> None:
    random, alarms = np.random.default_rng(4), 0
    for trial in range(20):
        errors = random.exponential(size=120) ** 2  # a few large ones, as where labels are wrong
        members = [one for at in range(4) for one in members_of(str(at), list(map(str, random.integers(0, 4, 120))))]
        alarms += any(one.is_worse for one in find_number_slices(errors, members, trial))

    assert alarms <= 4  # 5 % of 20 would be 1


@settings(max_examples=12, deadline=None)
@given(arrays(np.float64, 24, elements=st.integers(0, 9).map(float)), st.integers(10, 14))
def test_a_slice_of_numbers_and_the_rest_are_never_both_worse(errors: np.ndarray, size: int) -> None:
    parts = [Members("part", "one", np.arange(size)), Members("part", "other", np.arange(size, 24))]

    one, other = sorted(find_number_slices(errors, parts), key=lambda slice_: slice_.value)

    assert one.difference == pytest.approx(-other.difference)
    assert not (one.is_worse and other.is_worse)
    assert 0 <= one.interval.low <= one.mae <= one.interval.high
    assert 0 < one.p <= one.adjusted_p <= 1


def test_slices_of_sets_know_their_whole_sets_and_their_labels_and_are_read_again() -> None:
    random = np.random.default_rng(6)
    truth, is_old = random.uniform(size=(200, 3)) < 0.4, np.arange(200) < 60
    told = truth ^ (random.uniform(size=(200, 3)) < np.where(is_old, 0.4, 0.05)[:, None])
    chances = np.where(told, 0.8, 0.2)

    found = look_at_sets(chances, told, truth, CLASSES, members_of("camera", ["old"] * 60 + ["new"] * 140))

    worst, alone = found.slices[0], evaluate_sets(chances[:60], told[:60], truth[:60], CLASSES)
    assert (worst.value, worst.items, worst.is_worse) == ("old", 60, True)
    assert (worst.accuracy, worst.interval) == (alone.accuracy, alone.accuracy_interval)
    assert worst.micro_f1 is not None
    assert worst.micro_f1.value == pytest.approx(alone.micro_f1)
    assert worst.micro_f1.interval.low == pytest.approx(alone.micro_f1_interval.low, abs=0.01)
    numbers = look_at_numbers(
        np.stack([np.zeros(40), np.ones(40)], axis=1), np.arange(40.0), members_of("a", ["b"] * 20 + ["c"] * 20)
    )
    assert read(found.as_dict()) == found
    assert read(numbers.as_dict()) == numbers
    assert numbers.slices[0].value == "c"


def test_slices_without_a_difference_are_rarely_called_worse() -> None:
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(100):
        correct = random.uniform(size=200) < 0.8
        members = [one for at in range(8) for one in members_of(str(at), list(map(str, random.integers(0, 4, 200))))]
        alarms += any(one.is_worse for one in find_slices(correct, members))

    assert alarms <= 8


def test_numbers_are_cut_into_quarters_and_addresses_are_no_slices() -> None:
    sizes = members_of("size", list(range(100)))
    addresses = members_of("uri", [f"https://example.org/{at}" for at in range(400)])
    missing = members_of("camera", ["a"] * 20 + [None] * 30 + ["b"] * 5)

    assert [len(one.rows) for one in sizes] == [25, 25, 25, 25]
    assert addresses == []
    assert [(one.value, len(one.rows)) for one in missing] == [("a", 20)]
    assert find_slices(np.ones(30, bool), [Members("a", "b", np.arange(10))])[0].p == 1.0


def test_a_small_change_stays_small() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)

    changed = {name: change(name, pixels, seed=1) for name in CHANGES}

    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in changed.values())
    assert all((one != pixels).any() for one in changed.values())
    assert (change("noise (σ 10 of 255)", pixels, 1) == changed["noise (σ 10 of 255)"]).all()


def test_what_a_change_did_is_measured_for_classes_sets_and_numbers() -> None:
    half = np.arange(60)[:, None] < 30
    plain = np.tile([0.9, 0.1], (60, 1))
    turned = np.where(half, plain[:, ::-1], plain)
    head = SetHead(("cat", "dog"), np.zeros(3), np.ones(3), np.zeros((3, 2)), np.zeros(2), thresholds=np.full(2, 0.5))
    pairs = np.tile([[True, False]], (60, 1))
    numbers = np.tile([5.0, 1.0], (60, 1))
    moved = numbers + np.where(half, (2.0, 0.0), (1.9, 0.0))  # a deviation is 1: within 1.96 of it, or not

    of_classes, of_sets, of_numbers = (
        target_of(question(task, head.classes)).change("30 % darker", head, said, truth)
        for task, said, truth in (
            (Task.CLASSIFICATION, (turned, plain), np.zeros(60, dtype=np.int64)),
            (Task.MULTI_LABEL, (turned, plain), pairs),
            (Task.REGRESSION, (moved, numbers), np.full(60, 5.0)),
        )
    )

    assert (of_classes.kept, of_classes.difference, of_classes.is_worse) == (0.5, -0.5, True)
    assert (of_sets.kept, of_sets.difference, of_sets.is_worse) == (0.5, -0.5, True)
    assert (of_numbers.kept, of_numbers.is_worse) == (0.5, True)
    assert of_numbers.difference == pytest.approx(1.95)
    assert [one.measure for one in (of_classes, of_sets, of_numbers)] == ["accuracy"] * 2 + ["mean absolute error"]


def test_two_models_are_contrasted_class_by_class() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(0, 3, 300)
    current = np.eye(3)[labels] * 0.8 + 0.1
    new = current.copy()
    new[labels == 1] = current[labels == 1][:, [1, 0, 2]]  # every dog is taken for a cat

    found = contrast(new, current, labels, CLASSES)
    same = contrast(current, current, labels, CLASSES)

    assert [(one.name, one.is_real) for one in found.classes] == [("dog", True), ("cat", False), ("fox", False)]
    assert found.macro_f1.interval.high < 0 < found.log_loss.interval.low
    assert (same.macro_f1.value, same.macro_f1.interval.low, same.macro_f1.interval.high) == (0, 0, 0)

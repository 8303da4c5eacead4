"""Each check finds what was planted, keeps quiet where nothing was, and says the mend."""

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.monitoring.duplicates import near_duplicates
from backend.monitoring.labels import Label
from backend.monitoring.validation import Before, examine
from backend.questions import NUMBER, AnyOf, HowMuch, OneOf, number_label, set_label

CLASSES = ("cat", "dog")
START = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def a_label(number: int, label: str, item: int | None = None, **facts: Any) -> Label:
    item = number if item is None else item
    known: dict[str, Any] = {"content_hash": f"h{item}", "annotator": "1", "at": START + dt.timedelta(minutes=number)}
    return Label(number, item, label=label, **{**known, **facts})


def labels(count: int, **facts: Any) -> list[Label]:
    """`count` items, cat and dog in turn."""
    return [a_label(number, CLASSES[number % 2], **facts) for number in range(count)]


def found(rows: list[Label], classes: tuple[str, ...] = CLASSES, before: Before | None = None) -> dict[str, str]:
    """Severity by code."""
    return {finding.code: finding.severity for finding in examine(rows, OneOf(classes), before, None)}


def test_sound_labels_give_no_finding() -> None:
    rows = labels(60) + [a_label(100 + n, CLASSES[n % 2], is_holdout=True, is_random=True) for n in range(60)]

    assert found(rows, before=Before(CLASSES, {"cat": 5, "dog": 5})) == {}
    assert found([]) == {}


def test_of_sets_each_name_is_counted_and_tested_by_itself() -> None:
    question = AnyOf((*CLASSES, "bird"))
    names: list[list[str]] = [["cat"], ["cat", "dog"], ["dog"], []] * 30 + [["cat", "dog"], ["dog"]] * 50
    drawn = [a_label(at, set_label(name), is_random=True, is_holdout=True) for at, name in enumerate(names)]
    steady = [a_label(at, set_label(names[at % 4]), is_random=True, is_holdout=True) for at in range(200)]
    train = [a_label(500 + at, set_label(["dog", "bird"] if at else ["fox", "dog"])) for at in range(5)]

    shifted = examine([*drawn, *train], question, Before(question.choices, {"cat": 9, "dog": 9}), None)

    by_code = {finding.code: finding for finding in shifted}
    assert by_code.keys() == {"class_shares_shifted", "labels_orphaned", "label_new", "label_vanished"}
    assert "dog 50% → 100%" in by_code["class_shares_shifted"].what
    assert "'fox'" in by_code["labels_orphaned"].what
    assert "'bird'" in by_code["label_new"].what
    assert "'cat'" in by_code["label_vanished"].what
    assert examine(steady, question, None, None) == []


def test_numbers_are_not_compared_as_names_are() -> None:
    rows = [a_label(at, number_label(at / 7), item=at // 2, annotator=str(at % 2)) for at in range(80)]
    lost = [a_label(100, "cat")]

    assert examine(rows, HowMuch(NUMBER), Before(NUMBER, {}), None) == []
    assert [one.code for one in examine(rows + lost, HowMuch(NUMBER), None, None)] == ["labels_orphaned"]


def test_every_finding_that_warns_or_stops_says_the_mend() -> None:
    rows = [a_label(n, "bird") for n in range(20)] + [
        a_label(100 + n, CLASSES[n % 2], item=n % 4, content_hash="same", annotator=str(n % 3), is_holdout=n % 4 == 0)
        for n in range(60)
    ]

    findings = examine(rows, OneOf(CLASSES), Before(("bird", "cat", "dog"), {"bird": 3, "cat": 9}), None)

    assert [finding.severity for finding in findings] == sorted(
        (finding.severity for finding in findings), key=["stop", "warn", "note"].index
    )
    assert all(finding.mend for finding in findings if finding.severity != "note")


def test_a_shift_of_randomly_drawn_labels_warns_and_one_of_chosen_labels_does_not() -> None:
    names = ["cat", "dog"] * 50 + ["cat"] * 85 + ["dog"] * 15
    random = [a_label(number, name, is_random=True, is_holdout=True) for number, name in enumerate(names)]
    chosen = [a_label(number, name) for number, name in enumerate(names)]

    assert found(random) == {"class_shares_shifted": "warn"}
    assert found(chosen) == {}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("cat", "hound"), {"labels_renamed": "note", "labels_orphaned": "warn"}),
        (("cat", "dog", "bird"), {"labels_added": "note"}),
        (("cat", "bird", "fox"), {"labels_added": "note", "labels_removed": "note", "labels_orphaned": "warn"}),
        (("cat",), {"labels_removed": "note", "labels_orphaned": "warn"}),
        (("hen", "fox"), {"labels_renamed": "note", "labels_orphaned": "stop"}),
    ],
)
def test_a_changed_configuration_is_told_and_stops_where_most_labels_are_lost(
    classes: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert found(labels(40), classes, Before(CLASSES, {"cat": 3, "dog": 3})) == expected


def test_a_few_lost_labels_do_not_stop_a_project_that_has_few() -> None:
    assert found(labels(4), ("hen", "fox")) == {"labels_orphaned": "warn"}


def test_new_and_vanished_labels_are_told() -> None:
    rows = [a_label(number, "cat") for number in range(10)]

    assert found(rows, before=Before(CLASSES, {"dog": 7})) == {"label_new": "note", "label_vanished": "warn"}


def test_disputed_items_are_told_and_warn_where_they_are_many() -> None:
    few = labels(50) + [a_label(100 + n, CLASSES[(n + (n == 0)) % 2], item=n) for n in range(15)]
    many = labels(50) + [a_label(100 + n, CLASSES[(n + 1) % 2], item=n) for n in range(15)]

    assert found(few) == {"items_disputed": "note"}
    assert found(many) == {"items_disputed": "warn"}


def test_equal_contents_with_different_labels_warn() -> None:
    assert found([*labels(10), a_label(50, "cat", content_hash="h1")]) == {"duplicates_disputed": "warn"}
    assert found([*labels(10), a_label(50, "dog", content_hash="h1")]) == {}


@pytest.mark.parametrize(("leaks", "severity"), [(1, "warn"), (9, "warn"), (10, "stop")])
def test_a_holdout_that_was_trained_on_warns_and_stops_where_it_is_no_measure(leaks: int, severity: str) -> None:
    holdout = [
        a_label(100 + n, CLASSES[n % 2], is_holdout=True, content_hash=f"h{n if n < leaks else 100 + n}")
        for n in range(40)
    ]

    assert found(labels(40) + holdout) == {"holdout_leaks": severity}


def test_people_who_disagree_are_named_and_those_who_agree_are_not() -> None:
    rows = labels(60)
    rows += [a_label(100 + n, CLASSES[n % 2], item=n, annotator="good") for n in range(60)]
    rows += [a_label(200 + n, CLASSES[(n // 2) % 2], item=n, annotator="bad") for n in range(60)]

    findings = {finding.code: finding for finding in examine(rows, OneOf(CLASSES), None, None)}

    evidence = findings["annotators_disagree"].evidence
    assert "1 and bad" in evidence
    assert "bad and good" in evidence
    assert "1 and good" not in evidence


def embeddings(rows: list[Label], copies: dict[str, str]) -> Any:
    """A gather of vectors that lie far from the origin, as a network's do; `copies` nearly equal others."""
    random = np.random.default_rng(0)
    vectors = {row.content_hash: random.normal(size=32) + 20 for row in rows}
    vectors |= {copy: vectors[of] + random.normal(size=32) * 0.02 for copy, of in copies.items()}

    def gather(hashes: Any) -> NDArray[np.float16]:
        return np.array([vectors[hash_] for hash_ in hashes], np.float16)

    return gather


@pytest.mark.parametrize(("copies", "severity"), [(0, None), (3, "note"), (12, "warn")])
def test_near_copies_of_trained_items_in_the_holdout_are_told(copies: int, severity: str | None) -> None:
    rows = labels(60) + [a_label(100 + n, CLASSES[n % 2], is_holdout=True) for n in range(40)]
    gather = embeddings(rows, {f"h{100 + n}": f"h{n}" for n in range(copies)})

    found = {one.code: (one.severity, one.evidence) for one in examine(rows, OneOf(CLASSES), None, gather)}

    if severity is None:
        assert found == {}
    else:
        assert found["holdout_near_duplicates"][0] == severity
        assert found["holdout_near_duplicates"][1].startswith(f"{copies} of 40 looked at, such as item ")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(30, 60), m=st.integers(0, 20), cosine=st.sampled_from([0.3, 0.6]))
def test_near_duplicates_are_those_of_the_definition(seed: int, n: int, m: int, cosine: float) -> None:
    random = np.random.default_rng(seed)
    train, holdout = random.normal(size=(n, 5)).astype(np.float32), random.normal(size=(m, 5)).astype(np.float32)

    found = near_duplicates(train, holdout, cosine)

    a, b = train - train.mean(axis=0), holdout - train.mean(axis=0)
    plain = (b @ a.T) / (np.linalg.norm(b, axis=1)[:, None] * np.linalg.norm(a, axis=1))
    assert [row for row, _, _ in found] == np.flatnonzero(plain.max(axis=1, initial=-1) >= cosine).tolist()
    assert all(value == pytest.approx(plain[row].max(), abs=1e-4) for row, _, value in found)

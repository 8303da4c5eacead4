"""What several people's answers to a question come to."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.questions import NUMBER, names_in, question, set_label
from strategies import Task

NAMES = ("a", "b", "c")
SETS = st.lists(st.sets(st.sampled_from(NAMES)).map(set_label), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(SETS)
def test_a_set_holds_what_most_people_gave_and_of_a_tie_what_the_latest_gave(labels: list[str]) -> None:
    found, rows = question(Task.MULTI_LABEL, NAMES).agreed(labels)

    sets = [set(names_in(label)) for label in labels]
    for name in NAMES:
        yes, no = sum(name in one for one in sets), sum(name not in one for one in sets)
        assert (name in names_in(found)) == (yes > no or (yes == no and name in sets[-1]))
    assert rows == list(range(len(labels)))
    counts = Counter(labels).most_common()
    if counts[0][1] * 2 > len(labels):  # a whole set that most people gave is what they come to
        assert found == counts[0][0]


@pytest.mark.parametrize(
    ("task", "labels", "agreed", "rows"),
    [
        (Task.CLASSIFICATION, ["a", "b", "b", "a"], "a", [0, 3]),
        (Task.CLASSIFICATION, ["a", "b", "b"], "b", [1, 2]),
        (Task.REGRESSION, ["3", "4", "3"], "3", [0, 2]),
        (Task.REGRESSION, ["3", "4"], "4", [1]),
        (
            Task.MULTI_LABEL,
            ["[]", set_label(["a"]), "a"],
            set_label(["a"]),
            [0, 1, 2],
        ),  # "a" was one class
        (Task.MULTI_LABEL, ["a"], "a", [0]),
    ],
)
def test_a_class_and_a_number_are_what_most_people_gave_the_latest_among_equals(
    task: Task, labels: list[str], agreed: str, rows: list[int]
) -> None:
    asked = question(task, NUMBER if task == Task.REGRESSION else NAMES)

    assert asked.agreed(labels) == (agreed, rows)

"""What the pages say and draw, from states of every kind: parts that fill the bar, sentences that fit the state."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.database import now
from backend.web import charts, words
from backend.web.views.encoders import ChangeView, EncoderView
from backend.web.views.health import WorkerView
from backend.web.views.models import CurvePoint, Measure
from backend.web.views.projects import Counts, ProjectState, Trigger
from backend.web.views.rounds import RoundView
from backend.web.views.task import item_name

AT = now()
NOTHING = Counts(0, 0, 0, 0, 0, 0, 0)
DONE = RoundView(4, "done", "hand", "", None, None, {}, None, AT, AT, AT)
ALIVE = [WorkerView("w-0", "w", 1, AT, AT, True)]
STATE = ProjectState("flowers", "image", 2, "auto", 50, None, NOTHING, Trigger(5, 20, 5.0, 300.0, 0.64, 0.2), DONE)

counts = st.builds(Counts, *[st.integers(0, 10**7)] * 7)
measures = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted)
points = st.builds(
    lambda labels, values, source, state: CurvePoint(
        "v1", state, labels, Measure(source, 100, values[1], values[0], values[2], None, None, None)
    ),
    st.integers(0, 10**6),
    measures,
    st.sampled_from(["holdout", "cross-validation"]),
    st.sampled_from(["champion", "retired", "refused"]),
)


@given(counts)
def test_the_parts_fill_the_bar_and_each_that_is_there_can_be_seen(divided: Counts) -> None:
    bar = charts.bar(divided)

    assert sum(part.width for part in bar) == pytest.approx(100 if divided.total else 0, abs=0.01)
    assert all((part.width > 0.3) == (part.count > 0) for part in bar)
    assert sum(part.count for part in bar) == divided.total


@given(st.lists(points, max_size=20))
def test_a_curve_stays_within_its_frame(drawn: list[CurvePoint]) -> None:
    chart = charts.learning_curve(drawn)

    if chart is None:
        assert not drawn
        return
    for dot in chart.dots:
        assert chart.left <= dot.x <= chart.right
        assert 0 <= dot.high <= dot.y <= dot.low <= chart.bottom + 0.1
    assert len(chart.line.split()) == sum(
        point.measure.source == "holdout" and point.state != "refused" for point in drawn
    )
    assert all(chart.left <= tick.at <= chart.right for tick in chart.x_ticks)
    assert all(0 <= tick.at <= chart.bottom for tick in chart.y_ticks)
    assert 2 <= len(chart.y_ticks) <= 12


@pytest.mark.parametrize(
    ("state", "workers", "says"),
    [
        (STATE, ALIVE, "There is nothing to label yet"),
        (replace(STATE, round=None, counts=replace(NOTHING, new=9)), ALIVE, "Ask for a round"),
        (replace(STATE, counts=replace(NOTHING, pool=9, in_batch=1)), ALIVE, "1 item waits for a label"),
        (replace(STATE, counts=replace(NOTHING, labelled=9)), ALIVE, "The pool is exhausted"),
        (replace(STATE, counts=replace(NOTHING, pool=9)), ALIVE, "No batch is in people's hands"),
        (replace(STATE, round=replace(DONE, state="running")), [], "no worker gives a sign"),
        (
            replace(
                STATE, round=replace(DONE, state="failed", failure="Triton is away."), counts=replace(NOTHING, pool=1)
            ),
            ALIVE,
            "Round 4 failed: Triton is away. Mend that",
        ),
        (
            replace(STATE, round=replace(DONE, state="running"), counts=replace(NOTHING, pool=1)),
            ALIVE,
            "round 4 is on its way",
        ),
    ],
)
def test_the_advice_fits_the_state(state: ProjectState, workers: list[WorkerView], says: str) -> None:
    assert says in words.advice(state, workers)


def test_the_next_trigger_names_what_is_missing() -> None:
    enough = replace(STATE, trigger=replace(STATE.trigger, new_labels=20, rest_share=0.0))

    assert "after 15 more labels and 5 s of quiet" in words.next_trigger(STATE)
    assert "when 20% of the batch is left (now 64%)" in words.next_trigger(STATE)
    assert words.next_trigger(enough).startswith("The next round starts after 5 s of quiet")


@pytest.mark.parametrize(
    ("seconds", "says"), [(-5, "0 s"), (90, "90 s"), (150, "2 min"), (9_000, "2 h"), (200_000, "2 d")]
)
def test_times_are_told_as_a_person_would(seconds: int, says: str) -> None:
    assert words.ago(AT - dt.timedelta(seconds=seconds), AT) == f"{says} ago"


@pytest.mark.parametrize(
    ("uri", "is_inline", "name"),
    [
        ("https://ann:secret@host.example/a.jpg?X-Amz-Signature=1", False, "https://host.example/a.jpg"),
        ("/data/local-files/?d=cats/1.jpg", False, "cats/1.jpg"),
        ("/data/local-files/", False, ""),
        ("x" * 500, True, "x" * 400 + "…"),
    ],
)
def test_an_items_name_has_no_secret(uri: str, is_inline: bool, name: str) -> None:
    assert item_name(uri, is_inline) == name


@pytest.mark.parametrize(
    ("state", "done", "left_s", "failure", "says"),
    [
        ("waiting", None, None, None, "as soon as a worker takes that on. Rounds go on with lite0 (1a)."),
        ("checking", None, None, None, "loaded and checked. Rounds go on with lite0 (1a)."),
        ("encoding", 1_200, 180.0, None, "1,200 of 5,000 items are encoded, about 3 min left. Rounds go on"),
        ("ready", 5_000, None, None, "the next round switches to it."),
        ("failed", None, None, "Its weights are none.", "was not changed to mine: Its weights are none. Mend that"),
        ("in_use", 5_000, None, None, ""),
        ("cancelled", 7, None, None, ""),
    ],
)
def test_how_far_a_change_of_the_encoder_is_in_words(
    state: str, done: int | None, left_s: float | None, failure: str | None, says: str
) -> None:
    total = None if done is None else 5_000
    change = ChangeView(3, "mine", state, "configuration", done, total, left_s, None, failure, AT, None)

    told = words.encoder_change(replace(STATE, encoder=EncoderView("lite0 (1a)", "1a", change)))

    assert says in told
    assert bool(told) == bool(says)
    assert words.encoder_change(replace(STATE, encoder=EncoderView("lite0 (1a)", "1a", None))) == ""

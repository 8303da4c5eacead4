"""What the evidence is made of: texts that do not name their class, measures that add up, an agent that is judged."""

import io
from email.message import EmailMessage

import numpy as np
import pytest
from PIL import Image

from backend.backtest.replay import Curve
from benchmarks import emails
from benchmarks.evidence import AUTO, AUTO_PLAIN, PLAIN, RANDOM, rows_of
from benchmarks.measures import agent_regret, never_worse, saving
from benchmarks.pools import _changed

STEPS = (20, 40, 60, 80, 100)


def curves(*rows: list[float]) -> list[Curve]:
    return [Curve(STEPS, tuple(row), (0.0,) * len(STEPS), ("",) * len(STEPS)) for row in rows]


def test_a_text_holds_what_people_wrote_and_not_the_list_it_came_by() -> None:
    message = EmailMessage()
    message["Subject"] = "Re: [ILUG] which distribution?"
    message["List-Id"] = "Irish Linux Users' Group <ilug.linux.ie>"
    message["X-BeenThere"] = "ilug@linux.ie"
    message.set_content(
        "I like the one with the spiral.\n\n> ____________________________\n> http://linux.ie/mailman/listinfo/ilug\n"
        "-- \nIrish Linux Users' Group: ilug@linux.ie\nList maintainer: listmaster@linux.ie\n"
    )

    parsed = emails.parse(message.as_bytes())

    assert emails.list_of(parsed) == "ilug.linux.ie"
    text = emails.text_of(parsed)
    assert text.startswith("Re: which distribution?\n\nI like the one with the spiral.")
    assert "ilug" not in text.lower()


def test_of_a_page_only_the_words_are_left_and_a_strange_charset_is_read() -> None:
    page = b"<html><style>p {}</style><p>Buy &amp; win</p></html>"
    data = b"Subject: x\nContent-Type: text/html; charset=no-such-thing\n\n" + page + b"\xe4\n"

    assert emails.text_of(emails.parse(data)).split() == ["x", "Buy", "&", "win", "ä"]


def test_the_labels_saved_lie_where_the_mean_curve_crosses() -> None:
    found = {"random": curves([0.1, 0.2, 0.3, 0.4, 0.5]), "auto": curves([0.2, 0.4, 0.6, 0.7, 0.8])}

    (row,) = saving("selection_100", found, "auto", "random", 100)

    assert row["value"] == pytest.approx(50)
    assert saving("selection_1000", found, "auto", "random", 1_000) == []
    (never,) = saving("selection_100", found, "random", "auto", 100)
    assert never["value"] > 1e9


def test_the_service_is_held_against_the_bar_of_another_encoder_too() -> None:
    looks = (500, 1_000, 2_000)

    def runs(*accuracy: float) -> list[Curve]:
        return [Curve(looks, accuracy, (0.0,) * 3, ("",) * 3)] * 2

    plain, better = runs(0.4, 0.6, 0.7), runs(0.5, 0.7, 0.8)
    found = {"cifar-10-whole": dict.fromkeys((PLAIN, RANDOM), plain) | dict.fromkeys((AUTO_PLAIN, AUTO), better)}
    found["cifar-10-last-map"] = {PLAIN: runs(0.3, 0.5, 0.6)}

    rows = {row["id"]: row["value"] for row in rows_of(found, {})}

    assert rows["service_1000"] == pytest.approx(750)
    assert rows["service_1000:cifar-10-whole:cifar-10-last-map"] == 500
    assert rows["service_2000:cifar-10-whole:cifar-10-last-map"] == pytest.approx(750)
    assert not any(name.endswith(":cifar-10-last-map") and name.startswith("selection") for name in rows)


def test_the_worst_pool_is_the_one_that_is_told() -> None:
    base = [0.1, 0.2, 0.3, 0.4, 0.5]
    better, worse = [one + 0.1 for one in base], [one - 0.1 for one in base]
    pools = {
        "good": {"auto": curves(better, better), "random": curves(base, base)},
        "bad": {"auto": curves(worse, worse), "random": curves(base, base)},
    }

    row = never_worse(pools, (("auto", "random"),))

    assert row["value"] == pytest.approx(-0.1)
    assert row["where"] == "bad: auto"
    assert row["met"] is False


def test_an_agent_that_sees_half_of_the_seeds_regrets_what_the_other_half_shows() -> None:
    rise = np.array([0.50, 0.60, 0.66, 0.70, 0.73])
    noise = np.random.default_rng(0).normal(0, 0.002, (10, 5))
    clear = {"a": curves(*(rise + noise)), "b": curves(*(rise - 0.1 + noise))}
    misled = {"a": curves(*(rise + noise)), "b": curves(*(rise + np.where(np.arange(10) < 7, 0.01, -0.2)[:, None]))}

    assert agent_regret({"clear": clear})["value"] == 0
    row = agent_regret({"clear": clear, "misled": misled})
    assert row["where"] == "misled"
    assert row["value"] > 0
    assert row["best_afterwards"] == {"clear": "a", "misled": "a"}


def test_a_near_duplicate_is_another_file_with_almost_the_same_picture() -> None:
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
        (32, 32), Image.Resampling.BICUBIC
    )

    copies = [_changed(smooth, np.random.default_rng((7, copy))) for copy in (1, 2)]

    pixels = [np.asarray(Image.open(io.BytesIO(copy)), float) for copy in copies]
    assert copies[0] != copies[1]
    assert _changed(smooth, np.random.default_rng((7, 1))) == copies[0]
    for one in pixels:
        assert 1 < np.abs(one - np.asarray(smooth, float)).mean() < 30

"""Errors that grow are found, exchanged labels too, and errors that stay are not; plain numbers say what they mean."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from backend.errors import ImageBroken
from backend.monitoring.arrivals import check_inputs
from backend.monitoring.concept import Judged, adwin_confidence, check_errors
from backend.monitoring.finding import Finding
from backend.monitoring.suspicion import Suspicion, believed
from backend.pool.facts import facts


def stream(n: int, error: float, random: np.random.Generator, classes: int = 10) -> list[Judged]:
    labels = random.integers(0, classes, n)
    said = np.where(random.uniform(size=n) < error, (labels + random.integers(1, classes, n)) % classes, labels)
    return [Judged(f"c{a}", f"c{b}") for a, b in zip(said, labels, strict=True)]


def test_errors_that_stay_rarely_alarm() -> None:
    random = np.random.default_rng(0)

    told = [bool(believed(check_errors(stream(300, 0.2, random), new=100))) for _ in range(60)]

    assert sum(told) <= 3


def test_errors_that_grow_are_found() -> None:
    random = np.random.default_rng(1)

    found = believed(check_errors(stream(300, 0.1, random) + stream(200, 0.45, random), new=200))

    assert "errors_grew" in [one.code for one in found]
    assert "of the newest 200" in found[0].evidence


def test_exchanged_labels_are_found_and_named() -> None:
    random = np.random.default_rng(2)
    swap = {"c3": "c5", "c5": "c3"}
    swapped = [Judged(one.predicted, swap.get(one.label, one.label)) for one in stream(200, 0.15, random)]

    found = believed(check_errors(stream(300, 0.15, random) + swapped, new=200))

    named = next(one for one in found if one.code == "class_errors_grew")
    assert "'c3'" in named.what
    assert "'c5'" in named.what


def test_what_was_looked_at_before_and_errors_that_shrink_do_not_alarm() -> None:
    random = np.random.default_rng(3)
    grown = [one.is_wrong for one in stream(200, 0.1, random) + stream(100, 0.6, random)]
    shrunk = [one.is_wrong for one in stream(200, 0.6, random) + stream(200, 0.1, random)]

    assert adwin_confidence(grown, new=100) < 0.01
    assert adwin_confidence(grown + grown[-100:], new=50) == 1.0
    assert adwin_confidence(shrunk, new=200) == 1.0
    assert check_errors(stream(30, 0.5, random), new=10) == []


def test_of_many_tests_those_are_believed_that_chance_does_not_explain_together() -> None:
    finding = Finding("warn", "x", "X changed", "much", "Look.")

    alone = believed([Suspicion(0.03, finding)])
    among = believed([Suspicion(0.03, finding), *[Suspicion(0.5, finding)] * 9])

    assert len(alone) == 1
    assert "p = 0.03 by chance, one of 1 tests" in alone[0].evidence
    assert among == []


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    with io.BytesIO() as file:
        image.save(file, form)
        return file.getvalue()


def test_plain_numbers_tell_size_light_and_blur() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)

    sharp = facts(encoded(image), "image")
    blurred = facts(encoded(image.filter(ImageFilter.GaussianBlur(1))), "image")
    dark = facts(encoded(Image.fromarray(pixels // 2)), "image")

    assert (sharp["width"], sharp["height"]) == (80, 60)
    assert blurred["sharpness"] < 0.6 * sharp["sharpness"]
    assert dark["brightness"] == pytest.approx(sharp["brightness"] / 2, abs=0.01)
    assert facts("äb".encode(), "text") == {"bytes": 3.0, "characters": 2.0}
    with pytest.raises(ImageBroken):
        facts(b"no image", "image")


def test_a_number_that_moved_is_told_with_its_medians() -> None:
    random = np.random.default_rng(4)
    known = [{"brightness": float(value), "width": 32.0} for value in random.normal(0.5, 0.1, 200)]
    new = [{"brightness": float(value), "width": 32.0} for value in random.normal(0.6, 0.1, 60)]

    found = believed(check_inputs(known, new))

    assert [one.code for one in found] == ["brightness_drifted"]
    assert "median 0.4997 of 200 known, 0.61" in found[0].evidence
    assert believed(check_inputs(known[:100], known[100:])) == []
    assert check_inputs(known, new[:19]) == []

"""A round checks the labels before it trains: it alarms once, it stops with the mend, it goes on when told to."""

import numpy as np
import pytest

from backend.errors import LabelsRefused
from tests.monitoring.conftest import Played, clusters


def test_sound_rounds_give_no_alert(played: Played) -> None:
    played.hold_out(range(100, 160))
    for labels in (range(20), range(20, 40), range(100, 160)):
        played.label(labels)
        played.learn()

    assert played.alerts() == []


def test_a_renamed_label_stops_the_round_until_it_is_mended(played: Played) -> None:
    played.label(range(30))
    played.learn()
    played.configure(("hen", "fox"))

    with pytest.raises(LabelsRefused, match=r"30 of 30 annotations(.|\n)*labels_orphaned into validation.accept"):
        played.learn()
    with pytest.raises(LabelsRefused):
        played.learn()
    stopped = played.alerts()
    played.configure(("cat", "dog"))
    mended = played.learn()

    assert stopped == [("stop", "labels_orphaned"), ("note", "labels_renamed")]
    assert mended["version"] == "v2"


def test_what_is_accepted_warns_and_does_not_stop(played: Played) -> None:
    played.label(range(30))
    played.learn()
    played.configure(("cat", "hen", "fox"), validation={"accept": ["labels_orphaned"]})
    played.label(range(30, 34), names=["hen", "fox", "hen", "fox"])
    played.label(range(30), annotator="2", names=["bird"] * 30)

    report = played.learn()

    assert report["version"] == "v2"
    assert ("warn", "labels_orphaned") in played.alerts()
    assert ("note", "label_new") in played.alerts()


def test_a_holdout_of_copies_stops_the_round(played: Played) -> None:
    vectors, truth = clusters(200)
    uris = [f"https://example.org/{place}.jpg" for place in range(20)]  # what the first items' contents are named by
    played.add(vectors[:20], truth[:20], contents=uris)
    played.hold_out(range(200, 220))
    played.label(range(40))
    played.label(range(200, 220))

    with pytest.raises(LabelsRefused, match="20 of 20 holdout items"):
        played.learn()

    assert played.alerts() == [("stop", "holdout_leaks")]


def test_near_copies_in_the_holdout_warn_and_the_round_goes_on(played: Played) -> None:
    vectors, truth = clusters(200)
    near = vectors[:20] + np.random.default_rng(1).normal(size=(20, vectors.shape[1])).astype(np.float32) * 0.02
    played.add(near, truth[:20])
    played.hold_out(range(200, 220))
    played.label(range(60))
    played.label(range(200, 220))

    report = played.learn()

    assert report["version"] == "v1"
    assert played.alerts() == [("warn", "holdout_near_duplicates")]

"""A round notices that other items come into the pool than before, and keeps quiet where the same kind comes."""

import numpy as np
import pytest

from backend.database import Alert, reading
from backend.monitoring.drift import FEWEST
from backend.rounds import drift, learn
from tests.monitoring.conftest import DIMS, Played, clusters


def play(played: Played, vectors: np.ndarray, truth: list[int]) -> list[tuple[str, str]]:
    """A round, arrivals, and another round; its alerts."""
    played.label(range(60))
    played.learn()
    played.add(vectors, truth)
    played.learn()
    drift.watch(played.project_id, played.rounds)
    return played.alerts()


@pytest.fixture(autouse=True)
def _embeddings(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "open_embeddings", learn.open_embeddings)
    monkeypatch.setattr(drift, "_facts", lambda *_: [])


def test_more_of_the_same_gives_no_alert(played: Played) -> None:
    assert play(played, *clusters(100, seed=5)) == []


def test_a_kind_that_was_not_there_is_told_once(played: Played) -> None:
    strange = np.random.default_rng(3).normal(size=(60, DIMS)).astype(np.float32) * 1.5 - 3

    first = play(played, strange, [0] * 60)
    played.learn()
    drift.watch(played.project_id, played.rounds)

    assert ("warn", "embeddings_drifted") in first
    assert played.alerts() == first


def test_a_shift_of_the_predicted_shares_is_told_with_the_shares(played: Played) -> None:
    vectors, truth = clusters(300, seed=6)
    cats = [place for place, cluster in enumerate(truth) if cluster == 0]

    alerts = play(played, vectors[cats], [0] * len(cats))

    assert ("warn", "predictions_drifted") in alerts
    with reading() as session:
        messages = [alert.message for alert in session.query(Alert).filter_by(code="predictions_drifted")]
    assert "cat" in messages[0]
    assert "PSI" in messages[0]


def test_a_few_arrivals_say_nothing(played: Played) -> None:
    assert play(played, np.full((FEWEST - 1, DIMS), 9.0, np.float32), [0] * (FEWEST - 1)) == []

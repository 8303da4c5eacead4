"""Several annotators, against the authors' own code; and the like of given items, against plain greedy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from strategies import Request, create, kernels, run

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def scores_by_cleanlab(monkeypatch: pytest.MonkeyPatch, votes: Array, probabilities: Array) -> Array:
    """Without its temperature: here probabilities are taken to mean what they say."""
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    monkeypatch.setattr(multiannotator, "find_best_temp_scaler", lambda *_: 1.0)
    given = (votes >= 0).any(axis=1)
    wide = np.where(votes[given] >= 0, votes[given], np.nan).astype(float)
    voted, bare = multiannotator.get_active_learning_scores(
        wide, probabilities[given].astype(float), probabilities[~given].astype(float)
    )
    scores = np.empty(len(votes))
    scores[given], scores[~given] = voted, bare
    return scores


class TestActiveLab:
    @pytest.mark.parametrize("annotators", [2, 3, 7])
    @pytest.mark.parametrize("right", [0.9, 0.6, 0.3])
    def test_its_scores_are_those_of_the_authors_code(
        self, pool: MakePool, annotators: int, right: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(annotators)
        request = pool(300, budget=300)
        truth = request.probabilities.argmax(axis=1)
        said = np.where(rng.random((300, annotators)) < right, truth[:, None], rng.integers(0, 5, (300, annotators)))
        votes = np.where(rng.random((300, annotators)) < 0.4, said, -1)
        request = replace(request, votes=votes)

        selection = run(create("active_lab"), request)

        expected = 1 - scores_by_cleanlab(monkeypatch, votes, request.probabilities)
        rows = np.searchsorted(request.ids, selection.ids)
        assert np.allclose(selection.utilities, expected[rows], atol=1e-6)
        assert np.allclose(selection.utilities, np.sort(expected)[::-1], atol=1e-6)

    def test_with_one_annotator_too(self, pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
        request = pool(100, budget=100)
        votes = np.where(np.arange(100) % 3, -1, np.arange(100) % 5)[:, None]
        request = replace(request, votes=votes)

        selection = run(create("active_lab"), request)

        expected = 1 - scores_by_cleanlab(monkeypatch, votes, request.probabilities)
        assert np.allclose(selection.utilities, expected[np.searchsorted(request.ids, selection.ids)], atol=1e-6)

    def test_without_votes_it_is_the_order_of_least_confidence(self, pool: MakePool) -> None:
        request = pool(budget=50, votes=None)

        assert run(create("active_lab"), request).ids.tolist() == run(create("least_confidence"), request).ids.tolist()

    def test_of_equal_items_the_one_with_fewer_votes_comes_first(self, pool: MakePool) -> None:
        votes = np.full((60, 3), -1)
        votes[:40] = np.arange(40)[:, None] % 5  # all agree
        votes[30:40, 2] = (np.arange(30, 40) + 1) % 5  # but for some
        probabilities = np.full((60, 5), 0.1, dtype=np.float32)
        probabilities[np.arange(60), np.arange(60) % 5] = 0.6
        votes[5:10, 1:] = -1
        request = replace(pool(60, budget=60), votes=votes, probabilities=probabilities)

        order = run(create("active_lab"), request).ids.tolist()

        place = {item: position for position, item in enumerate(order)}
        bare, once, often = (
            np.mean([place[f"item-{i:05d}"] for i in r]) for r in (range(40, 60), range(5, 10), range(5))
        )
        assert bare < once < often

    def test_ties_of_votes_go_to_the_probable_class(self) -> None:
        votes = np.array([[0, 1], [1, 2], [2, 2]])
        probabilities = np.array([[0.2, 0.7, 0.1], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])

        consensus = kernels.crowdlab(votes, probabilities)

        assert consensus.quality.shape == (3,)
        assert consensus.quality.argmax() == 2


class TestSimilar:
    @pytest.mark.parametrize("relevance", [0.0, 0.1, 1.0])
    def test_its_picks_are_those_of_plain_greedy(self, pool: MakePool, relevance: float) -> None:
        request = pool(300, labels=0, budget=40)

        selection = run(create("similar", relevance=relevance), request)

        both = np.concatenate([request.embeddings, request.targets]).astype(float)
        both -= request.embeddings.astype(float).mean(axis=0)
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        likeness = (1 + both[:300] @ both[300:].T) / 2
        covered, picks, gains = np.zeros(4), [], []
        for _ in range(40):
            gain = np.maximum(likeness - covered, 0).sum(axis=1) + relevance * likeness.max(axis=1)
            gain[picks] = -1
            picks.append(int(gain.astype(np.float32).argmax()))
            gains.append(gain.max())
            covered = np.maximum(covered, likeness[picks[-1]])
        assert np.allclose(selection.utilities, gains, rtol=1e-4, atol=1e-6)
        if relevance:  # without, nothing is left to gain once every target has its nearest
            assert selection.ids.tolist() == request.ids[picks].tolist()

    def test_every_target_gets_its_part(self, pool: MakePool) -> None:
        rng = np.random.default_rng(0)
        owner = np.repeat(np.arange(8), 30)
        points = (np.eye(8)[owner] * 20 + rng.normal(size=(240, 8))).astype(np.float32)
        request = pool(240, dimensions=8, labels=0, budget=3)
        request = replace(request, embeddings=points, targets=(np.eye(8)[[1, 4, 6]] * 20).astype(np.float32))

        rows = np.searchsorted(request.ids, run(create("similar"), request).ids)

        assert sorted(owner[rows].tolist()) == [1, 4, 6]

"""Strategies that cover the pool, each against its definition, written as plainly as in the paper, however slow."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from strategies import Request, create, run
from tests.strategies.test_hybrid_oracles import greedy, on_the_sphere, squared_distances

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


class TestFacilityLocation:
    @pytest.mark.parametrize("labels", [0, 12])
    def test_its_picks_are_those_of_plain_greedy(self, pool: MakePool, labels: int) -> None:
        request = pool(300, labels=labels, budget=40)

        selection = run(create("facility_location"), request)

        points, labelled = on_the_sphere(request)
        covered = ((1 + points @ labelled.T) / 2).max(axis=1, initial=0)
        picks, gains = greedy((1 + points @ points.T) / 2, covered, 40)
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, gains, rtol=1e-3, atol=1e-6)

    def test_it_reaches_the_share_of_the_best_that_greedy_guarantees(self, pool: MakePool) -> None:
        request = pool(14, labels=0, budget=3, dimensions=3)

        selection = run(create("facility_location"), request)

        points, _ = on_the_sphere(request)
        kernel = (1 + points @ points.T) / 2
        best = max(kernel[list(three)].max(axis=0).mean() for three in combinations(range(14), 3))
        reached = kernel[np.isin(request.ids, selection.ids)].max(axis=0).mean()
        assert reached >= (1 - 1 / np.e) * best
        assert selection.utilities.sum() == pytest.approx(reached, rel=1e-4)


class TestKMeansPlusPlus:
    @pytest.mark.parametrize("labels", [0, 12])
    def test_its_utilities_are_the_squared_distances_to_what_was_labelled_and_drawn(
        self, pool: MakePool, labels: int
    ) -> None:
        request = pool(labels=labels, budget=40)

        selection = run(create("k_means_plus_plus"), request)

        rows = np.searchsorted(request.ids, selection.ids)
        for pick in range(0 if labels else 1, 40):
            known = np.concatenate([request.labelled_embeddings, request.embeddings[rows[:pick]]])
            least = squared_distances(request.embeddings[rows[[pick]]], known).min()
            assert selection.utilities[pick] == pytest.approx(least, rel=1e-4)

    def test_the_seed_decides(self, pool: MakePool) -> None:
        request = pool()

        assert len({tuple(run(create("k_means_plus_plus"), replace(request, seed=s)).ids) for s in range(5)}) == 5


class TestLightweightCoreset:
    def test_each_item_is_drawn_as_often_as_it_says(self, pool: MakePool) -> None:
        request = pool(12, budget=4, dimensions=2)
        counts = dict.fromkeys(request.ids.tolist(), 0)
        said: dict[str, float] = {}

        for seed in range(3000):
            selection = run(create("lightweight_coreset"), replace(request, seed=seed))
            for item, chance in zip(selection.ids.tolist(), selection.propensities.tolist(), strict=True):
                counts[item] += 1
                said[item] = chance

        points = request.embeddings.astype(float)
        squared = np.square(points - points.mean(axis=0)).sum(axis=1)
        expected = 4 * (0.5 / 12 + 0.5 * squared / squared.sum())
        assert expected.max() < 1
        assert np.allclose([said[i] for i in request.ids.tolist()], expected, rtol=1e-4)
        frequency = np.array(list(counts.values())) / 3000
        assert np.abs(frequency - expected).max() < 4 * np.sqrt(0.25 / 3000)

    def test_weighted_by_its_chances_it_estimates_the_cost_of_any_centres(self, pool: MakePool) -> None:
        request = pool(300, budget=60)
        centres = np.random.default_rng(0).normal(size=(3, 16))
        costs = squared_distances(request.embeddings, centres).min(axis=1)

        estimates = []
        for seed in range(300):
            selection = run(create("lightweight_coreset"), replace(request, seed=seed))
            rows = np.searchsorted(request.ids, selection.ids)
            estimates.append((costs[rows] / selection.propensities).sum())

        assert np.mean(estimates) == pytest.approx(costs.sum(), rel=0.02)

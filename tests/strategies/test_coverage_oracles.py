"""Strategies that cover the pool, each against its definition, written as plainly as in the paper, however slow."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from strategies import Request, create, kernels, run
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


class TestProbCover:
    @pytest.mark.parametrize("labels", [0, 12])
    @pytest.mark.parametrize("radius", [0.3, 0.8])
    def test_its_picks_are_those_of_plain_greedy(self, pool: MakePool, labels: int, radius: float) -> None:
        request = pool(200, labels=labels, budget=200, dimensions=4)

        selection = run(create("prob_cover", radius=radius), request)

        points, labelled = on_the_sphere(request)
        inside = squared_distances(points, points) <= radius**2
        bare = ~(squared_distances(points, labelled) <= radius**2).any(axis=1)
        left, picks, gains = np.ones(200, dtype=bool), [], []
        for _ in range(200):
            gain = np.where(left, (inside & bare).sum(axis=1), -1)
            if gain.max() == 0:
                bare = left.copy()
                gain = np.where(left, (inside & bare).sum(axis=1), -1)
            picks.append(int(gain.argmax()))
            gains.append(int(gain.max()))
            bare &= ~inside[picks[-1]]
            left[picks[-1]] = False
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert selection.utilities.tolist() == gains

    def test_it_covers_the_share_of_the_best_that_greedy_guarantees(self, pool: MakePool) -> None:
        request = pool(14, labels=0, budget=3, dimensions=3)

        selection = run(create("prob_cover", radius=0.7), request)

        points, _ = on_the_sphere(request)
        inside = squared_distances(points, points) <= 0.49
        best = max(inside[list(three)].any(axis=0).sum() for three in combinations(range(14), 3))
        assert selection.utilities.sum() >= (1 - 1 / np.e) * best

    @pytest.mark.parametrize("purity", [0.5, 0.9, 1.0])
    def test_its_radius_is_the_largest_at_which_enough_balls_are_pure(self, purity: float) -> None:
        rng = np.random.default_rng(0)
        points, group = rng.normal(size=(150, 3)).astype(np.float32), rng.integers(0, 3, 150)
        points += 2 * np.eye(3, dtype=np.float32)[group]

        radius = kernels.pure_radius(torch.from_numpy(points), torch.from_numpy(group), purity)

        apart = np.sqrt(squared_distances(points, points))
        pure = [((apart <= r) <= (group[:, None] == group)).all(axis=1).mean() for r in (radius, 1.002 * radius)]
        assert pure[0] >= purity > pure[1]


class TestDal:
    def logits(self, ones: Array, zeros: Array, penalty: float) -> tuple[Array, float]:
        """The same classifier by scikit-learn."""
        smaller = min(len(ones), len(zeros))
        weights = np.concatenate([np.full(len(ones), smaller / len(ones)), np.full(len(zeros), smaller / len(zeros))])
        goal = np.arange(len(ones) + len(zeros)) < len(ones)
        fitted = LogisticRegression(C=1 / penalty, tol=1e-7, solver="newton-cholesky")
        fitted.fit(np.concatenate([ones, zeros]), goal, weights)
        return fitted.coef_[0], float(fitted.intercept_[0])

    @pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
    def test_its_classifier_is_that_of_scikit_learn(self, penalty: float) -> None:
        rng = np.random.default_rng(0)
        ones, zeros = rng.normal(size=(300, 6)), rng.normal(size=(40, 6)) + 1

        weights, bias = kernels.tell_apart(ones.astype(np.float32), zeros.astype(np.float32), penalty)

        expected, intercept = self.logits(ones.astype(np.float32), zeros.astype(np.float32), penalty)
        assert np.allclose(weights, expected, atol=1e-4)
        assert bias == pytest.approx(intercept, abs=1e-4)

    @pytest.mark.parametrize("dimensions", [4, 64])
    def test_scores_on_the_embeddings_own_axes_are_those_on_the_sphere(self, dimensions: int) -> None:
        rng = np.random.default_rng(0)
        points = (rng.normal(size=(300, 20)) + 2).astype(np.float16)
        project = kernels.fit_projection(points, dimensions)
        weights = rng.normal(size=min(dimensions, 20))

        scores = kernels.linear_scores(points, project, kernels.projected_lengths(points, project), weights, 0.3)

        assert np.allclose(scores, project(points).numpy() @ weights + 0.3, atol=1e-5)

    def test_each_part_of_the_batch_is_what_is_most_surely_unlabelled(self, pool: MakePool) -> None:
        request = pool(200, budget=30)

        selection = run(create("dal", rounds=3, penalty=1.0), request)

        points, labelled = on_the_sphere(request)
        picks: list[int] = []
        for _ in range(3):
            free = np.setdiff1d(np.arange(200), picks)
            weights, bias = self.logits(points[free], np.concatenate([labelled, points[picks]]), 1.0)
            odds = points[free] @ weights + bias
            picks += free[np.argsort(-odds)[:10]].tolist()
        assert selection.ids.tolist() == request.ids[picks].tolist()

    def test_it_fills_a_hole_that_the_labels_left(self, pool: MakePool) -> None:
        request = pool(300, budget=20)
        side = request.embeddings[:, 0] > np.median(request.embeddings[:, 0])
        request = replace(request, labelled_embeddings=request.embeddings[side], labelled_classes=None)

        rows = np.searchsorted(request.ids, run(create("dal"), request).ids)

        assert (~side[rows]).mean() >= 0.9

"""Strategies that weigh doubt against coverage, each against its definition, written as plainly as in the paper."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from strategies import Request, create, run
from strategies.kernels import ranking

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def squared_distances(points: Array, centres: Array) -> Array:
    return np.square(points[:, None].astype(float) - centres[None].astype(float)).sum(axis=2)


def on_the_sphere(request: Request) -> tuple[Array, Array]:
    """Few dimensions: PCA keeps all of them, so the sphere is centring and scaling."""
    both = np.concatenate([request.embeddings, request.labelled_embeddings]).astype(float)
    both -= both.mean(axis=0)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    return both[: len(request.ids)], both[len(request.ids) :]


def margins(probabilities: Array) -> Array:
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def entropies(probabilities: Array) -> Array:
    return np.array([-sum(x * np.log(x) for x in row if x > 0) for row in probabilities.astype(float)])


def greedy(kernel: Array, covered: Array, budget: int) -> tuple[list[int], list[float]]:
    """Plain greedy of mean over targets of the best likeness; kernel is (n, t)."""
    picks: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        gain = np.maximum(kernel - covered, 0).mean(axis=1)
        gain[picks] = -1
        picks.append(int(gain.astype(np.float32).argmax()))
        gains.append(float(gain.max()))
        covered = np.maximum(covered, kernel[picks[-1]])
    return picks, gains


class TestBadge:
    def test_its_utilities_are_the_squared_distances_of_the_gradients(self, pool: MakePool) -> None:
        request = pool(200, budget=40)

        selection = run(create("badge"), request)

        residuals = request.probabilities.astype(float).copy()
        residuals[np.arange(200), residuals.argmax(axis=1)] -= 1
        whole = np.einsum("nk,nd->nkd", residuals, request.embeddings.astype(float)).reshape(200, -1)
        rows = np.searchsorted(request.ids, selection.ids)
        assert rows[0] == np.square(whole).sum(axis=1).argmax()
        assert selection.utilities[0] == pytest.approx(np.square(whole[rows[0]]).sum(), rel=1e-5)
        for pick in range(1, 40):
            least = squared_distances(whole[rows[[pick]]], whole[rows[:pick]]).min()
            assert selection.utilities[pick] == pytest.approx(least, rel=1e-4)

    def test_certain_items_come_last(self, pool: MakePool) -> None:
        probabilities = pool(40).probabilities.copy()
        probabilities[[4, 20]] = np.eye(5)[[2, 0]]  # no gradient at all

        order = run(create("badge"), replace(pool(40, budget=40), probabilities=probabilities)).ids.tolist()

        # the first of them may be drawn, as far from the others as they are from nothing; the second is its double
        assert order[-1] in {"item-00004", "item-00020"}


class TestUHerding:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_its_picks_are_those_of_plain_greedy(self, pool: MakePool, temperature: float) -> None:
        request = pool(300, budget=40)

        selection = run(create("uherding", temperature=temperature), request)

        points, labelled = on_the_sphere(request)
        width = min(1.0, min(np.linalg.norm(a - b) for a, b in combinations(labelled, 2)))
        logits = np.log(request.probabilities.astype(float)) / temperature
        doubt = 1 - margins(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        kernel = np.exp(-squared_distances(points, points) / width**2) * doubt
        covered = (np.exp(-squared_distances(points, labelled) / width**2) * doubt[:, None]).max(axis=1)
        picks, gains = greedy(kernel, covered, 40)
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, gains, rtol=1e-3, atol=1e-6)
        assert selection.diagnostics["width"] == pytest.approx(width, rel=1e-5)

    def test_without_labels_it_is_max_herding(self, pool: MakePool) -> None:
        request = pool(labels=0)

        assert run(create("uherding"), request).ids.tolist() == run(create("max_herding"), request).ids.tolist()

    def test_a_vanishing_width_leaves_the_doubt_alone(self, pool: MakePool) -> None:
        request = pool(budget=30)

        selection = run(create("uherding", width=1e-3), request)

        assert selection.ids.tolist() == run(create("margin"), request).ids.tolist()


class TestInformationDensity:
    @pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
    def test_it_is_its_formula(self, pool: MakePool, beta: float) -> None:
        request = pool(budget=300)

        selection = run(create("information_density", beta=beta), request)

        unit = request.embeddings.astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        cosine = np.array([np.mean([one @ other for other in unit]) for one in unit])
        expected = entropies(request.probabilities) * np.maximum(cosine, 0) ** beta
        assert np.allclose(selection.utilities, np.sort(expected)[::-1], rtol=1e-4, atol=1e-6)
        if beta == 0:
            assert selection.ids.tolist() == run(create("entropy"), request).ids.tolist()


class TestWeightedClusters:
    def blobs(self, pool: MakePool, sizes: list[int]) -> tuple[Request, Array]:
        rng = np.random.default_rng(0)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        points = (np.eye(8)[owner] * 20 + rng.normal(size=(len(owner), 8))).astype(np.float32)
        request = pool(len(owner), dimensions=8, budget=len(sizes))
        return replace(request, embeddings=points, labelled_embeddings=points[:0], labelled_classes=owner[:0]), owner

    @pytest.mark.parametrize("name", ["k_means", "dbal", "clue"])
    def test_each_cluster_gives_the_item_nearest_its_weighted_centre_the_heaviest_first(
        self, pool: MakePool, name: str
    ) -> None:
        request, owner = self.blobs(pool, [50, 30, 40, 60, 20, 10])

        selection = run(create(name), request)

        if name == "dbal":  # its shortlist: ten times six
            short = np.sort(np.argsort(margins(request.probabilities), kind="stable")[:60])
        else:
            short = np.arange(210)
        sphere, _ = on_the_sphere(request)
        weigh = {"k_means": lambda p: np.ones(len(p)), "dbal": lambda p: 1 - margins(p), "clue": entropies}[name]
        weights = weigh(request.probabilities[short])
        mass = np.array([weights[owner[short] == blob].sum() for blob in range(6)])
        picks = []
        for blob in np.argsort(-mass, kind="stable"):
            inside = short[owner[short] == blob]
            centre = np.average(sphere[inside], axis=0, weights=weights[owner[short] == blob])
            picks.append(inside[squared_distances(sphere[inside], centre[None])[:, 0].argmin()])
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, np.sort(mass)[::-1], rtol=1e-5)

    def test_the_weights_move_a_centre(self, pool: MakePool) -> None:
        angles = np.arange(9) * 2 * np.pi / 9
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        probabilities = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (9, 1))
        probabilities[-1] = 0.5
        request = Request(ids=pool(9).ids, budget=1, probabilities=probabilities, embeddings=ring)

        assert run(create("clue"), request).ids.tolist() == ["item-00008"]


class TestTcm:
    @pytest.mark.parametrize(("labels", "chosen"), [(99, "typiclust"), (100, "margin")])
    def test_it_changes_from_typiclust_to_margin_at_twenty_labels_a_class(
        self, pool: MakePool, labels: int, chosen: str
    ) -> None:
        request = pool(labels=labels)

        selection = run(create("tcm"), request)

        assert selection.diagnostics["chosen"] == chosen
        assert selection.diagnostics["strategy"] == "tcm"
        assert selection.ids.tolist() == run(create(chosen), request).ids.tolist()


def naive_ranked_batch(points: Array, labelled: Array, doubt: Array, budget: int) -> tuple[list[int], list[float]]:
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(budget):
        known = np.concatenate([labelled, points[picks]]).astype(float)
        likeness = np.zeros(len(points))
        if len(known):
            likeness = 1 / (1 + np.sqrt(squared_distances(points, known).min(axis=1)))
        share = (len(points) - len(picks)) / (len(points) - len(picks) + len(known))
        score = share * (1 - likeness) + (1 - share) * doubt
        score[picks] = -1
        picks.append(int(score.astype(np.float32).argmax()))
        scores.append(float(score.max()))
    return picks, scores


class TestRankedBatch:
    @pytest.mark.parametrize("labels", [0, 12, 400])
    @pytest.mark.parametrize("shortlist", [1, 20, 8192])
    def test_its_picks_are_those_of_the_naive_algorithm(
        self, pool: MakePool, labels: int, shortlist: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ranking, "_SHORTLIST", shortlist)
        request = pool(300, labels=labels, budget=60)

        selection = run(create("ranked_batch"), request)

        doubt = 1 - request.probabilities.max(axis=1).astype(float)
        picks, scores = naive_ranked_batch(request.embeddings, request.labelled_embeddings, doubt, 60)
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, scores, atol=1e-6)

    @pytest.mark.parametrize("shortlist", [1, 20, 8192])
    def test_doubles_go_by_row(self, pool: MakePool, shortlist: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranking, "_SHORTLIST", shortlist)
        request = pool(60, budget=60)
        rows = np.arange(60) % 7
        request = replace(
            request, embeddings=request.embeddings[rows], probabilities=request.probabilities[rows], samples=None
        )

        selection = run(create("ranked_batch"), request)

        doubt = 1 - request.probabilities.max(axis=1).astype(float)
        picks, _ = naive_ranked_batch(request.embeddings, request.labelled_embeddings, doubt, 60)
        assert selection.ids.tolist() == request.ids[picks].tolist()


class TestClusterMargin:
    def test_it_visits_the_clusters_of_the_shortlist_from_the_smallest_round_after_round(self, pool: MakePool) -> None:
        rng = np.random.default_rng(0)
        owner = rng.permutation(np.repeat(np.arange(6), [50, 30, 40, 60, 20, 40]))
        points = (np.eye(8)[owner] * 20 + rng.normal(size=(240, 8))).astype(np.float32)
        request = replace(pool(240, labels=0, dimensions=8, budget=9), embeddings=points)

        selection = run(create("cluster_margin", cluster_size=40, shortlist=8), request)

        short = np.argsort(margins(request.probabilities), kind="stable")[:72]
        sizes = np.bincount(owner[short], minlength=6)
        rows = np.searchsorted(request.ids, selection.ids)
        assert set(rows.tolist()) <= set(short.tolist())
        assert [sizes[owner[row]] for row in rows[:6]] == sorted(sizes.tolist())
        assert len(set(owner[rows[:6]].tolist())) == 6
        left = sorted(size for size in sizes.tolist() if size > 1)
        assert [sizes[owner[row]] for row in rows[6:]] == left[:3]

    def test_the_seed_draws_within_the_clusters(self, pool: MakePool) -> None:
        request = pool(budget=10)

        batches = {tuple(sorted(run(create("cluster_margin"), replace(request, seed=s)).ids)) for s in range(4)}

        assert len(batches) == 4

"""Each strategy against its definition, written as plainly as in the paper, however slow."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from strategies import Request, create, run

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def ranking(utilities: Array, ids: Array, count: int) -> list[str]:
    return [str(ids[row]) for row in sorted(range(len(ids)), key=lambda r: (-utilities[r], ids[r]))[:count]]


def squared_distances(points: Array, centres: Array) -> Array:
    return np.square(points[:, None].astype(float) - centres[None].astype(float)).sum(axis=2)


FORMULAS: dict[str, Callable[[Array], float]] = {
    "least_confidence": lambda p: 1 - max(p),
    "margin": lambda p: sorted(p)[-2] - sorted(p)[-1],
    "ratio": lambda p: sorted(p)[-2] / sorted(p)[-1],
    "entropy": lambda p: -sum(x * np.log(x) for x in p if x > 0),
}


@pytest.mark.parametrize("name", FORMULAS)
class TestUncertainty:
    def test_it_is_its_formula(self, name: str, pool: MakePool) -> None:
        request = pool(budget=300)

        selection = run(create(name), request)

        utilities = np.array([FORMULAS[name](row) for row in request.probabilities])
        assert selection.ids.tolist() == ranking(utilities.astype(np.float32), request.ids, 300)
        assert np.allclose(selection.utilities, np.sort(utilities)[::-1], atol=1e-6)

    def test_two_classes_give_one_order(self, name: str, pool: MakePool) -> None:
        share = np.random.default_rng(1).permutation((np.arange(300) + 0.25) / 300).astype(np.float32)
        probabilities = np.stack([share, 1 - share], axis=1)
        request = pool(
            budget=300, classes=2, probabilities=probabilities, logits=None, samples=None, votes=None, labels=0
        )

        order = run(create(name), request).ids.tolist()

        assert order == ranking(-np.abs(2 * share.astype(float) - 1), request.ids, 300)

    def test_certain_is_last_and_uniform_is_first(self, name: str, pool: MakePool) -> None:
        request = pool(40, budget=40)
        probabilities = request.probabilities.copy()
        probabilities[[8, 30]] = 0.2
        probabilities[[4, 20]] = np.eye(5)[[2, 0]]

        order = run(create(name), replace(request, probabilities=probabilities)).ids.tolist()

        assert order[:2] == ["item-00008", "item-00030"]
        assert order[-2:] == ["item-00004", "item-00020"]

    def test_the_names_of_the_classes_do_not_matter(self, name: str, pool: MakePool) -> None:
        request = pool()
        turned = replace(request, probabilities=request.probabilities[:, [3, 0, 4, 1, 2]])

        assert run(create(name), turned).ids.tolist() == run(create(name), request).ids.tolist()


class TestRandom:
    def test_every_item_and_every_pair_is_drawn_equally_often(self, pool: MakePool) -> None:
        request = pool(12, budget=4)
        counts = dict.fromkeys(combinations(request.ids.tolist(), 2), 0)

        for seed in range(3000):
            for pair in combinations(sorted(run(create("random"), replace(request, seed=seed)).ids.tolist()), 2):
                counts[pair] += 1

        assert chisquare(list(counts.values())).pvalue > 1e-4

    def test_it_gives_the_chance_of_each_pick(self, pool: MakePool) -> None:
        selection = run(create("random"), pool(40, budget=10, excluded=frozenset({"item-00001"})))

        assert selection.propensities.tolist() == [10 / 39] * 10

    def test_taking_others_away_does_not_change_the_order_of_the_rest(self, pool: MakePool) -> None:
        everyone = run(create("random"), pool(40, budget=40)).ids.tolist()
        gone = frozenset(everyone[::3])

        rest = run(create("random"), pool(40, budget=40, excluded=gone)).ids.tolist()

        assert rest == [i for i in everyone if i not in gone]


def naive_k_center(points: Array, labelled: Array, budget: int) -> tuple[list[int], list[float]]:
    """Distances in float64, compared as float32; the first of equals."""
    picks, radii = [], []
    if len(labelled):
        least = squared_distances(points, labelled).min(axis=1)
    else:
        centre = points.astype(float).mean(axis=0)
        picks.append(int(squared_distances(points, centre[None])[:, 0].astype(np.float32).argmin()))
        least = squared_distances(points, points[picks])[:, 0]
        radii.append(float(least.max()) ** 0.5)
    while len(picks) < budget:
        least[picks] = -np.inf
        row = int(least.astype(np.float32).argmax())
        radii.append(float(least[row]) ** 0.5)
        picks.append(row)
        least = np.minimum(least, squared_distances(points, points[[row]])[:, 0])
    return picks, radii


class TestKCenter:
    @pytest.mark.parametrize("labels", [0, 1, 12])
    @pytest.mark.parametrize("shortlist", [1, 5, 60, 8192])
    @pytest.mark.parametrize("kind", ["blobs", "grid", "doubles", "far_out"])
    def test_its_picks_are_those_of_the_naive_algorithm(
        self, pool: MakePool, labels: int, shortlist: int, kind: str
    ) -> None:
        request = pool(400, labels=labels, budget=60)
        points = request.embeddings.copy()
        if kind == "grid":  # nothing but ties
            points = np.round(points / 3)
        elif kind == "doubles":
            points = points[np.arange(400) % 70]
        elif kind == "far_out":  # an outlier whose norm swamps float32
            points[7] = 5000
        request = replace(request, embeddings=points)

        selection = run(create("k_center_greedy", shortlist=shortlist), request)

        picks, radii = naive_k_center(points, request.labelled_embeddings, 60)
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, radii, rtol=1e-5)
        assert (np.diff(selection.utilities) <= 1e-6).all()

    @pytest.mark.parametrize("data_seed", range(8))
    def test_its_radius_is_at_most_twice_the_best(self, pool: MakePool, data_seed: int) -> None:
        request = pool(11, labels=0, budget=3, dimensions=2, data_seed=data_seed)
        apart = np.sqrt(squared_distances(request.embeddings, request.embeddings))

        selection = run(create("k_center_greedy"), request)

        best = min(apart[:, list(three)].min(axis=1).max() for three in combinations(range(11), 3))
        picked = np.isin(request.ids, selection.ids)
        assert apart[:, picked].min(axis=1).max() <= 2 * best + 1e-6


def on_the_sphere(request: Request) -> tuple[Array, Array]:
    """Few dimensions: PCA keeps all of them, so the sphere is centring and scaling."""
    both = np.concatenate([request.embeddings, request.labelled_embeddings]).astype(float)
    both -= both.mean(axis=0)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    return both[: len(request.ids)], both[len(request.ids) :]


class TestMaxHerding:
    @pytest.mark.parametrize("labels", [0, 12])
    @pytest.mark.parametrize("width", [0.3, 1.0])
    def test_its_picks_are_those_of_plain_greedy(self, pool: MakePool, labels: int, width: float) -> None:
        request = pool(300, labels=labels, budget=40)
        points, labelled = on_the_sphere(request)

        selection = run(create("max_herding", width=width), request)

        kernel = np.exp(-squared_distances(points, points) / width**2)
        covered = np.exp(-squared_distances(points, labelled) / width**2).max(axis=1, initial=0)
        picks, gains = [], []
        for _ in range(40):
            gain = np.maximum(kernel - covered, 0).mean(axis=1)
            gain[picks] = -1
            picks.append(int(gain.astype(np.float32).argmax()))
            gains.append(gain.max())
            covered = np.maximum(covered, kernel[picks[-1]])
        assert selection.ids.tolist() == request.ids[picks].tolist()
        assert np.allclose(selection.utilities, gains, rtol=1e-3, atol=1e-6)

    def test_it_reaches_the_share_of_the_best_that_greedy_guarantees(self, pool: MakePool) -> None:
        request = pool(14, labels=0, budget=3, dimensions=3)
        points, _ = on_the_sphere(request)
        kernel = np.exp(-squared_distances(points, points))

        selection = run(create("max_herding"), request)

        best = max(kernel[list(three)].max(axis=0).mean() for three in combinations(range(14), 3))
        assert kernel[np.isin(request.ids, selection.ids)].max(axis=0).mean() >= (1 - 1 / np.e) * best
        assert selection.utilities.sum() == pytest.approx(
            kernel[np.isin(request.ids, selection.ids)].max(axis=0).mean(), rel=1e-4
        )


class TestTypiClust:
    def test_it_takes_one_typical_item_of_each_blob_without_a_label(self, pool: MakePool) -> None:
        rng = np.random.default_rng(0)
        blobs = np.eye(8) * 20
        owner = np.arange(240) % 8
        points = (blobs[owner] + rng.normal(size=(240, 8))).astype(np.float32)
        labelled = (blobs[:3] + rng.normal(size=(3, 8))).astype(np.float32)
        request = pool(240, budget=5)
        request = replace(
            request, embeddings=points, labelled_embeddings=labelled, labelled_classes=np.arange(3), targets=None
        )

        selection = run(create("typiclust"), request)

        rows = np.flatnonzero(np.isin(request.ids, selection.ids))
        assert sorted(owner[rows].tolist()) == [3, 4, 5, 6, 7]
        sphere, _ = on_the_sphere(request)
        for row in rows:
            group = np.flatnonzero(owner == owner[row])
            apart = np.sort(np.sqrt(squared_distances(sphere[group], sphere[group])), axis=1)
            typical = 1 / apart[:, 1:21].mean(axis=1)
            assert row == group[typical.argmax()]


class TestClassBalancedMargin:
    def test_each_pick_is_the_smallest_margin_of_the_class_with_the_fewest_labels(self, pool: MakePool) -> None:
        request = pool(budget=80)
        request = replace(request, labelled_classes=np.array([0] * 8 + [1] * 3 + [4]))

        selection = run(create("class_balanced_margin"), request)

        ordered = np.sort(request.probabilities, axis=1)
        gaps, predicted = ordered[:, -1] - ordered[:, -2], request.probabilities.argmax(axis=1)
        counts, left, picks = [8, 3, 0, 0, 1], set(range(300)), []
        for _ in range(80):
            label = min((c for c in range(5) if any(predicted[r] == c for r in left)), key=lambda c: (counts[c], c))
            picks.append(min((r for r in left if predicted[r] == label), key=lambda r: (gaps[r], r)))
            left.remove(picks[-1])
            counts[label] += 1
        assert selection.ids.tolist() == request.ids[picks].tolist()


class TestMarginClusters:
    def test_it_picks_inside_the_shortlist_the_smallest_margin_first(self, pool: MakePool) -> None:
        request = pool(budget=10)
        short = run(create("margin"), replace(request, budget=40)).ids.tolist()

        selection = run(create("margin_clusters", shortlist=4, duplicate=1.01), request)

        assert set(selection.ids.tolist()) <= set(short)
        assert (np.diff(selection.utilities) <= 0).all()

    def test_no_two_picks_are_near_duplicates(self, pool: MakePool) -> None:
        request = pool(300, budget=20, dimensions=32)
        noise = np.random.default_rng(0).normal(size=(300, 32)) * 0.05
        points = (request.embeddings[np.arange(300) // 5] + noise).astype(np.float32)
        request = replace(request, embeddings=points, probabilities=request.probabilities[np.arange(300) // 5])

        spread = run(create("margin_clusters"), request)
        plain = run(create("margin"), request)

        sphere, _ = on_the_sphere(request)
        families = {s.diagnostics["strategy"]: len({int(i[5:]) // 5 for i in s.ids.tolist()}) for s in (spread, plain)}
        picked = sphere[np.isin(request.ids, spread.ids)]
        assert families == {"margin_clusters": 20, "margin": 4}
        assert (picked @ picked.T - np.eye(20)).max() < 0.85

    def test_with_room_for_the_batch_alone_it_is_margin(self, pool: MakePool) -> None:
        request = pool(budget=10)

        selection = run(create("margin_clusters", shortlist=1, duplicate=1.01), request)

        assert selection.ids.tolist() == run(create("margin"), request).ids.tolist()

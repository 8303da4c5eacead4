"""Strategies that look near labelled items or with the linear head, each against its definition written plainly."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as draw
from scipy.special import rel_entr, softmax

from strategies import Request, create, kernels, run
from strategies.kernels import blocks
from tests.strategies.test_hybrid_oracles import margins, on_the_sphere, squared_distances

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def ranking(utilities: Array, rows: Array, count: int) -> list[int]:
    return sorted(rows.tolist(), key=lambda row: (-np.float32(utilities[row]), row))[:count]


class TestCal:
    @pytest.mark.parametrize("neighbours", [1, 3, 100])
    def test_it_is_the_mean_divergence_from_what_the_nearest_labelled_items_are_predicted(
        self, pool: MakePool, neighbours: int
    ) -> None:
        request = pool(200, budget=200)

        selection = run(create("cal", neighbours=neighbours), request)

        theirs = softmax(request.labelled_embeddings.astype(float) @ request.head_weights + request.head_bias, axis=1)
        apart = squared_distances(request.embeddings, request.labelled_embeddings)
        expected = [
            np.mean(
                [
                    rel_entr(theirs[near], request.probabilities[row]).sum()
                    for near in np.argsort(apart[row])[:neighbours]
                ]
            )
            for row in range(200)
        ]
        rows = np.searchsorted(request.ids, selection.ids)
        assert np.allclose(selection.utilities, np.array(expected)[rows], rtol=1e-4)
        assert np.allclose(selection.utilities, np.sort(expected)[::-1], rtol=1e-4)

    def test_without_labels_it_is_entropy(self, pool: MakePool) -> None:
        request = pool(labels=0)

        assert run(create("cal"), request).ids.tolist() == run(create("entropy"), request).ids.tolist()


class TestSeals:
    @pytest.mark.parametrize("block_bytes", [64 << 20, 3000])
    def test_it_is_margin_among_the_nearest_of_each_label(
        self, pool: MakePool, block_bytes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        request = pool(300, labels=6, budget=30)

        selection = run(create("seals", neighbours=4), request)

        points, labelled = on_the_sphere(request)
        near = np.unique(np.argsort(-(labelled @ points.T), axis=1)[:, :4])
        utilities = -margins(request.probabilities)
        inside = ranking(utilities, near, 30)
        outside = ranking(utilities, np.setdiff1d(np.arange(300), near), 30 - len(inside))
        assert selection.ids.tolist() == request.ids[inside + outside].tolist()
        assert selection.diagnostics["subpool"] == len(near)
        assert selection.diagnostics["filled_up"] == len(outside)

    def test_with_all_the_pool_as_neighbours_it_is_margin(self, pool: MakePool) -> None:
        request = pool(budget=40)

        selection = run(create("seals", neighbours=300), request)

        assert selection.ids.tolist() == run(create("margin"), request).ids.tolist()


class TestAnchorAl:
    def test_it_is_margin_among_what_is_most_like_the_anchors_that_brought_it(self, pool: MakePool) -> None:
        request = pool(300, labels=8, budget=10)
        request = replace(request, labelled_classes=np.array([0, 0, 0, 0, 0, 1, 1, 3]))

        selection = run(create("anchor_al", anchors=8, neighbours=12, subpool=25), request)

        points, labelled = on_the_sphere(request)  # eight anchors a class: all labelled items
        cosine = labelled @ points.T
        brought: dict[int, list[float]] = {}
        for anchor in range(8):
            for row in np.argsort(-cosine[anchor])[:12]:
                brought.setdefault(int(row), []).append(cosine[anchor, row])
        means = {row: np.mean(values) for row, values in brought.items()}
        subpool = np.array(sorted(means, key=lambda row: (-round(means[row], 6), row))[:25])
        assert selection.ids.tolist() == request.ids[ranking(-margins(request.probabilities), subpool, 10)].tolist()

    def test_every_class_gets_its_anchors_and_they_are_spread(self) -> None:
        rng = np.random.default_rng(0)
        classes = np.array([0] * 60 + [1] * 3 + [4] * 40)
        points = rng.normal(size=(103, 4)).astype(np.float32) * 0.01
        points[40:60] += 10  # class 0 has two blobs

        rows = kernels.anchors(points, classes, 5, seed=2)

        assert [int((classes[rows] == label).sum()) for label in (0, 1, 4)] == [5, 3, 5]
        assert {bool(40 <= row < 60) for row in rows if classes[row] == 0} == {True, False}


class TestDropQuery:
    def test_what_is_left_out_is_an_independent_coin_of_each_feature(self) -> None:
        # a head that tells the features apart: with one feature left, the class is that feature
        points = np.ones((4000, 8), dtype=np.float32)
        head = np.eye(8, dtype=np.float32) * (1 + 1e-3 * np.arange(8)[::-1].astype(np.float32))

        changes = kernels.dropped_disagreement(points, np.arange(4000), head, np.zeros(8), 0.75, 1, seed=3)

        # class 0 wins unless feature 0 is left out, and once all are left out
        assert changes.mean() == pytest.approx(0.75 - 0.75**8, abs=4 * np.sqrt(0.19 / 4000))

    @pytest.mark.parametrize("seed", [0, 5])
    def test_passes_are_independent_and_belong_to_the_item(self, seed: int) -> None:
        points = np.ones((5000, 8), dtype=np.float32)
        head = np.eye(8, dtype=np.float32) * (1 + 1e-3 * np.arange(8)[::-1].astype(np.float32))

        whole = kernels.dropped_disagreement(points, np.arange(5000), head, np.zeros(8), 0.5, 2, seed)
        part = kernels.dropped_disagreement(points[:700], np.arange(700) + 4300, head, np.zeros(8), 0.5, 2, seed)

        assert part.tolist() == whole[4300:].tolist()
        chance = 0.5 - 0.5**8
        expected = np.array([(1 - chance) ** 2, 2 * chance * (1 - chance), chance**2])
        assert np.allclose(np.bincount(whole) / 5000, expected, atol=4 * np.sqrt(0.25 / 5000))

    def test_it_picks_among_the_unsure_one_of_each_cluster(self, pool: MakePool) -> None:
        request = pool(400, budget=10)

        selection = run(create("drop_query"), request)

        changes = kernels.dropped_disagreement(
            request.embeddings, request.ids, request.head_weights, request.head_bias, 0.75, 3, request.seed
        )
        rows = np.searchsorted(request.ids, selection.ids)
        unsure = np.flatnonzero(changes >= 2)
        assert selection.diagnostics["unsure"] == len(unsure) > 10
        assert set(rows.tolist()) <= set(unsure.tolist())
        picks, _ = kernels.representatives(unit(request, unsure), 10, 1000, request.seed)
        assert rows.tolist() == unsure[picks].tolist()

    def test_items_that_never_change_come_last(self, pool: MakePool) -> None:
        request = pool(40, budget=40)

        selection = run(create("drop_query", rate=0.3), request)

        assert (np.diff(selection.utilities) <= 0).all()
        assert selection.utilities[-1] == 0


def unit(request: Request, rows: Array) -> torch.Tensor:
    points, _ = on_the_sphere(replace(request, labelled_embeddings=request.embeddings[:0], labelled_classes=None))
    return torch.from_numpy(points[rows]).float()


def naive_next(labels: list[int]) -> tuple[int, int, bool] | None:
    """Read off the whole line: labels are 0, 1, or -1 where bare."""
    known = [place for place, label in enumerate(labels) if label >= 0]
    unlike = [(a, b) for a, b in pairwise(known) if labels[a] != labels[b]]
    runs = [(b - a - 1, a, b) for a, b in unlike if b - a > 1]
    if runs:
        size, a, b = min(runs)
        return (a + b) // 2, size, True
    bare = [place for place, label in enumerate(labels) if label < 0]
    beside = []
    for a, b in unlike:
        left, right = [p for p in bare if p < a], [p for p in bare if p > b]
        beside += [(a - left[-1], left[-1])] if left else []
        beside += [(right[0] - b, right[0])] if right else []
    return (min(beside)[1], min(beside)[0], False) if beside else None


class TestGalaxy:
    @settings(max_examples=200, deadline=None)
    @given(labels=draw.lists(draw.sampled_from([-1, -1, -1, 0, 1]), min_size=1, max_size=40), coins=draw.randoms())
    def test_the_line_gives_the_place_that_reading_it_off_would(self, labels: list[int], coins: random.Random) -> None:
        line = kernels.Line(np.array(labels))

        for _ in range(labels.count(-1)):
            expected = naive_next(labels)
            assert line.next() == expected
            bare = [place for place, label in enumerate(labels) if label < 0]
            place = bare[0] if expected is None else expected[0]
            labels[place] = coins.randint(0, 1)
            line.put(place, labels[place])
        assert line.next() is None

    def test_it_bisects_between_the_labels_of_two_classes(self) -> None:
        share = ((np.arange(101) + 0.5) / 101).astype(np.float32)  # row r has place 100 - r on the line of class 0
        probabilities = np.stack([share, 1 - share], axis=1)
        # the head puts label 0 between rows 95 and 96, label 1 between rows 14 and 15
        logit = np.log(np.array([96 / 5, 15 / 86]))[:, None].astype(np.float32)
        request = Request(
            ids=np.arange(101),
            budget=4,
            probabilities=probabilities,
            labelled_embeddings=logit,
            labelled_classes=np.array([0, 1]),
            head_weights=np.array([[1.0, 0.0]], dtype=np.float32),
            head_bias=np.zeros(2, dtype=np.float32),
        )

        selection = run(create("galaxy"), request)

        # 81 bare rows from 95 down to 15; rows from 50 up are predicted class 0 and so count as labelled 0
        lengths = 1 / selection.utilities
        assert lengths[0] == 81
        assert selection.ids[0] == 55
        assert (lengths[1:] <= lengths[:-1] / 2).all()
        assert (np.abs(selection.ids - 49.5) <= lengths).all()

    def test_a_rare_class_gets_as_many_picks_as_a_common_one(self, pool: MakePool) -> None:
        rng = np.random.default_rng(0)
        request = pool(600, budget=100)
        rare = rng.random(600) < 0.03
        best = np.where(rare, 4, rng.integers(0, 2, 600))
        probabilities = (0.5 * np.eye(5)[best] + 0.5 * rng.dirichlet(np.ones(5), 600)).astype(np.float32)
        request = replace(request, probabilities=probabilities, labelled_classes=np.arange(12) % 5)

        selection = run(create("galaxy"), request)

        rows = np.searchsorted(request.ids, selection.ids)
        assert rare[rows].mean() > 2 * rare.mean()

    def test_without_labels_it_draws_by_lot(self, pool: MakePool) -> None:
        request = pool(budget=30, labels=0)

        selection = run(create("galaxy"), request)

        assert selection.utilities[0] == 0
        assert "by lot" in selection.reasons[0]

"""BatchBALD, EPIG and BAIT against their definitions, by enumeration and by plain inverses."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from strategies import Request, create, kernels, run

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def entropy(p: Array) -> float:
    return float(-sum(x * np.log(x) for x in np.ravel(p) if x > 0))


def joint_information(samples: Array, rows: list[int]) -> float:
    """I(y_rows; head), by going through every outcome under every head."""
    heads, _, classes = samples.shape
    own = np.array(
        [
            [np.prod([samples[t, row, k] for row, k in zip(rows, labels, strict=True)]) for t in range(heads)]
            for labels in product(range(classes), repeat=len(rows))
        ]
    )
    return entropy(own.mean(axis=1)) - float(np.mean([entropy(own[:, t]) for t in range(heads)]))


def heads(count: int, items: int, classes: int, seed: int = 0, sure: float = 0.5) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(classes, sure), (count, items)).astype(np.float32)


def request_of(samples: Array, budget: int, seed: int = 0) -> Request:
    return Request(ids=np.arange(samples.shape[1]), budget=budget, seed=seed, samples=samples)


class TestBatchBald:
    @pytest.mark.parametrize("seed", range(3))
    def test_its_picks_are_those_of_plain_greedy(self, seed: int) -> None:
        samples = heads(12, 9, 3, seed)
        picks: list[int] = []
        gains = []
        for _ in range(3):
            tried = {row: joint_information(samples, [*picks, row]) for row in range(9) if row not in picks}
            best = max(tried, key=lambda row: (tried[row], -row))
            gains.append(tried[best] - joint_information(samples, picks))
            picks.append(best)

        selection = run(create("batch_bald"), request_of(samples, 3))

        assert selection.ids.tolist() == picks
        assert np.allclose(selection.utilities, gains, atol=1e-5)
        assert selection.diagnostics["exact_picks"] == 3

    def test_its_first_pick_is_that_of_bald(self) -> None:
        request = request_of(heads(20, 200, 5), 1)

        one, alone = run(create("batch_bald"), request), run(create("bald"), request)

        assert one.ids.tolist() == alone.ids.tolist()
        assert np.allclose(one.utilities, alone.utilities, atol=1e-6)

    def test_it_is_near_the_best_batch_there_is(self) -> None:
        samples = heads(15, 10, 3, 5)

        selection = run(create("batch_bald"), request_of(samples, 3))

        best = max(joint_information(samples, list(rows)) for rows in combinations(range(10), 3))
        assert selection.utilities.sum() >= (1 - 1 / np.e) * best
        assert selection.utilities.sum() == pytest.approx(joint_information(samples, selection.ids.tolist()), abs=1e-5)

    @pytest.mark.parametrize("configurations", [1, 8, 40])
    def test_drawn_outcomes_estimate_what_all_of_them_say(self, configurations: int) -> None:
        samples = heads(30, 5, 3, 2, sure=0.4)
        found = []

        for seed in range(60):
            rows, gains, exact = kernels.joint_information(samples, 5, configurations, seed)
            assert sorted(rows.tolist()) == list(range(5))
            assert exact == 1 + sum(3**picks <= configurations for picks in (1, 2, 3, 4))
            found.append(gains.sum())

        truth = joint_information(samples, list(range(5)))
        assert abs(np.mean(found) - truth) < 4 * np.std(found) / 60**0.5 + 0.01
        assert np.std(found) < {1: 0.5, 8: 0.2, 40: 0.1}[configurations]

    def test_drawn_outcomes_lead_to_picks_that_tell_as_much(self) -> None:
        samples = heads(40, 14, 3, 4, sure=1.0)

        exact, _, _ = kernels.joint_information(samples, 5, 10**6, 0)
        drawn, _, count = kernels.joint_information(samples, 5, 50, 0)

        assert count == 4
        told, best = (joint_information(samples, rows.tolist()) for rows in (drawn, exact))
        assert told > 0.98 * best

    def test_two_of_a_kind_are_not_picked_together(self) -> None:
        samples = heads(20, 30, 4, 1, sure=0.2)[:, np.arange(60) % 30]
        request = request_of(samples, 5)

        together, alone = run(create("batch_bald"), request), run(create("bald"), request)

        assert len({row % 30 for row in together.ids.tolist()}) == 5
        assert len({row % 30 for row in alone.ids.tolist()}) == 3

    def test_what_heads_cannot_tell_is_filled_up_by_bald_and_said(self) -> None:
        samples = np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(0, 4, (8, 50))]

        selection = run(create("batch_bald"), request_of(samples, 20))

        said = selection.diagnostics
        joint = int(said["exact_picks"]) + int(said["drawn_picks"])
        assert said["nats"] == said["nats_possible"] == round(np.log(8), 4)
        assert said["filled_by_bald"] == 20 - joint > 0
        assert selection.reasons[0].startswith("with those before it")
        assert selection.reasons[-1].startswith("taken alone")
        assert (np.diff(selection.utilities[joint:]) <= 0).all()


class TestEpig:
    def test_it_is_its_formula(self) -> None:
        samples = heads(6, 25, 3)
        expected = np.zeros(25)
        for row, aim in product(range(25), range(25)):
            joint = np.einsum("tk,tl->kl", samples[:, row].astype(float), samples[:, aim].astype(float)) / 6
            apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            expected[row] += (joint * np.log(joint / apart))[joint > 0].sum() / 25

        selection = run(create("epig"), request_of(samples, 25))

        assert selection.ids.tolist() == np.argsort(-expected).tolist()
        assert np.allclose(selection.utilities, np.sort(expected)[::-1], atol=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    def test_no_item_has_more_than_its_bald(self, seed: int) -> None:
        samples = heads(7, 60, 4, seed)
        rows = np.arange(60)

        assert (kernels.predictive_information(samples, rows, rows) <= kernels.information(samples) + 1e-6).all()

    def test_a_short_list_says_whether_it_lost_anything(self) -> None:
        samples = heads(5, 200, 3)
        samples[:, 100:] = samples[0, 100:]  # agreed upon
        whole = run(create("epig"), request_of(samples, 5))

        short = run(create("epig", shortlist=100), request_of(samples, 5))
        shorter = run(create("epig", shortlist=20), request_of(samples, 5))

        assert short.diagnostics["looked_at"] == 100
        assert float(short.diagnostics["most_outside"]) < short.utilities[-1]
        assert short.ids.tolist() == whole.ids.tolist()
        assert float(shorter.diagnostics["most_outside"]) > shorter.utilities[-1]

    def test_it_leaves_alone_what_tells_nothing_about_the_rest(self) -> None:
        rng = np.random.default_rng(0)
        samples = np.repeat(rng.dirichlet(np.ones(3), (8, 1)), 40, axis=1).astype(np.float32)  # all say the same
        samples[:, 7] = np.eye(3)[np.tile([0, 1, 2, 0], 2)]  # disputed, and unlike the others
        mixed = np.corrcoef(samples[:, 7, 0], samples[:, 0, 0])[0, 1]
        assert abs(mixed) < 0.9

        assert run(create("bald"), request_of(samples, 1)).ids.tolist() == [7]
        assert run(create("epig"), request_of(samples, 1)).ids.tolist() != [7]


def plain_bait(points: Array, doubt: Array, known: Array, pool: Array, budget: int, forward: int) -> list[int]:
    def trace(rows: list[int]) -> float:
        batch = sum((doubt[row] * np.outer(points[row], points[row]) for row in rows), np.zeros_like(known))
        return float(np.trace(np.linalg.inv(known + batch) @ pool))

    picks: list[int] = []
    while len(picks) < forward:
        picks.append(min((row for row in range(len(points)) if row not in picks), key=lambda r: trace([*picks, r])))
    while len(picks) > budget:
        picks.remove(min(picks, key=lambda row: trace([other for other in picks if other != row])))
    return picks


class TestBait:
    @pytest.mark.parametrize("data_seed", range(4))
    @pytest.mark.parametrize("labels", [0, 3])
    @pytest.mark.parametrize("has_head", [True, False])
    def test_its_picks_are_those_of_plain_inverses(
        self, pool: MakePool, data_seed: int, labels: int, has_head: bool
    ) -> None:
        request = pool(12, labels=labels, budget=4, dimensions=5, data_seed=data_seed)
        if not has_head:
            request = replace(request, head_weights=None, head_bias=None)
        both = np.concatenate([request.embeddings, request.labelled_embeddings]).astype(float)
        both -= both.mean(axis=0)
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        doubt = 1 - np.square(request.probabilities.astype(float)).sum(axis=1)
        seen = np.full(labels, doubt.mean())
        if has_head:
            logits = request.labelled_embeddings.astype(float) @ request.head_weights + request.head_bias
            odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            seen = 1 - np.square(odds).sum(axis=1)
        known = 0.5 * np.eye(5) + np.einsum("n,nd,ne->de", seen, both[12:], both[12:])
        wanted = np.einsum("n,nd,ne->de", doubt, both[:12], both[:12]) / 12

        selection = run(create("bait", ridge=0.5), request)

        plain = plain_bait(both[:12], doubt, known, wanted, 4, 8)
        assert selection.ids.tolist() == request.ids[plain].tolist()
        batch = np.einsum("n,nd,ne->de", doubt[plain], both[plain], both[plain])
        assert float(selection.diagnostics["trace"]) == pytest.approx(
            np.trace(np.linalg.inv(known + batch) @ wanted), rel=1e-4
        )

    def test_forward_of_one_is_plain_greedy_whose_gains_add_up(self) -> None:
        rng = np.random.default_rng(0)
        points, doubt = rng.normal(size=(40, 6)), rng.random(40)
        pool = kernels.fisher(points, doubt)

        rows, took, left = kernels.least_trace(points, doubt, np.eye(6), pool, 10, 10)

        assert rows.tolist() == plain_bait(points, doubt, np.eye(6), pool, 10, 10)
        assert np.trace(pool) - took.sum() == pytest.approx(left, rel=1e-5)
        assert np.allclose(pool, sum(w * np.outer(x, x) for w, x in zip(doubt, points, strict=True)))

    def test_it_does_not_pick_the_same_thing_twice(self, pool: MakePool) -> None:
        request = pool(60, labels=0, budget=6)
        double = replace(
            request,
            embeddings=request.embeddings[np.arange(60) % 6],
            probabilities=np.full((60, 5), 0.2, dtype=np.float32),
        )

        selection = run(create("bait"), double)

        assert len({int(i[5:]) % 6 for i in selection.ids.tolist()}) == 6

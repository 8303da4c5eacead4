"""Strategies that give each item a number of its own: against their definitions, in plain Python."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw
from hypothesis.extra.numpy import arrays

from strategies import Pointwise, Request, create, kernels, run
from strategies.kernels import blocks

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def entropy(p: Array) -> float:
    return -sum(x * np.log(x) for x in p if x > 0)


def kl(p: Array, q: Array) -> float:
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def vote_shares(heads: Array) -> Array:
    winners = [int(np.argmax(head)) for head in heads]
    return np.array([winners.count(k) / len(heads) for k in range(heads.shape[1])])


def epig(heads: Array, others: Array) -> float:
    """(T, K) of one item and (T, m, K) of the targets."""
    terms = []
    for m in range(others.shape[1]):
        joint = sum(np.outer(a, b) for a, b in zip(heads, others[:, m], strict=True)) / len(heads)
        apart = np.outer(heads.mean(axis=0), others[:, m].mean(axis=0))
        terms.append(sum(j * np.log(j / a) for j, a in zip(joint.ravel(), apart.ravel(), strict=True) if j > 0))
    return float(np.mean(terms))


FORMULAS: dict[tuple[str, str], Callable[[Array], float]] = {
    ("bald", "over"): lambda h: entropy(h.mean(axis=0)) - np.mean([entropy(p) for p in h]),
    ("consensus_entropy", "over"): lambda h: entropy(h.mean(axis=0)),
    ("kl_divergence", "mean"): lambda h: np.mean([kl(p, h.mean(axis=0)) for p in h]),
    ("kl_divergence", "max"): lambda h: max(kl(p, h.mean(axis=0)) for p in h),
    ("mean_std", "over"): lambda h: np.mean([np.std(h[:, k]) for k in range(h.shape[1])]),
    ("variation_ratio", "over"): lambda h: 1 - max(vote_shares(h)),
    ("vote_entropy", "over"): lambda h: entropy(vote_shares(h)),
}
COMMITTEE = sorted({name for name, _ in FORMULAS})


def scores(name: str, samples: Array, **values: Any) -> Array:
    """What the strategy says of every item of samples (T, n, K), aligned with them."""
    request = Request(ids=np.arange(samples.shape[1]), budget=samples.shape[1], samples=samples.astype(np.float32))
    selection = run(create(name, **values), request)
    return selection.utilities[np.argsort(selection.ids)]


def committees(heads: int = 6, items: int = 8) -> draw.SearchStrategy[Array]:
    """Samples (T, n, K) with zeros and ones among them."""

    def normalised(weights: Array) -> Array:
        weights = np.where(weights.sum(axis=2, keepdims=True) == 0, 1, weights)
        return (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32)

    shapes = draw.tuples(draw.integers(1, heads), draw.integers(1, items), draw.integers(2, 5))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=draw.integers(0, 6))).map(normalised)


class TestCommittee:
    @pytest.mark.parametrize(("name", "over"), FORMULAS)
    def test_it_is_its_formula(self, name: str, over: str, pool: MakePool) -> None:
        samples = np.random.default_rng(2).dirichlet(np.ones(5) * 0.4, (7, 200))
        values = {} if over == "over" else {"over": over}

        found = scores(name, samples, **values)

        assert np.allclose(found, [FORMULAS[name, over](samples[:, row]) for row in range(200)], atol=2e-6)

    @given(committees())
    def test_information_is_not_negative_and_not_above_what_there_is_to_know(self, samples: Array) -> None:
        heads, _, classes = samples.shape

        bald, whole = scores("bald", samples), scores("consensus_entropy", samples)

        assert (bald >= 0).all()
        assert (bald <= whole + 1e-6).all()
        assert (bald <= np.log(min(heads, classes)) + 1e-6).all()
        assert (whole <= np.log(classes) + 1e-6).all()
        assert np.allclose(scores("kl_divergence", samples), bald, atol=1e-6)
        assert (scores("kl_divergence", samples, over="max") >= bald - 1e-6).all()

    @settings(max_examples=40)
    @given(committees(), draw.randoms(use_true_random=False))
    def test_names_of_classes_order_of_heads_and_blocks_do_not_matter(self, samples: Array, random: Any) -> None:
        classes, heads = list(range(samples.shape[2])), list(range(samples.shape[0]))
        random.shuffle(classes)
        random.shuffle(heads)

        for name in set(COMMITTEE) - {"variation_ratio", "vote_entropy"}:  # a tied vote goes to the lower class
            assert np.allclose(scores(name, samples), scores(name, samples[heads][:, :, classes]), atol=1e-6)
        for name in COMMITTEE:
            whole = scores(name, samples)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(blocks, "BLOCK_BYTES", 1)
                assert (scores(name, samples) == whole).all()

    @pytest.mark.parametrize("name", COMMITTEE)
    def test_heads_that_agree_for_certain_are_worth_nothing(self, name: str) -> None:
        assert scores(name, np.eye(4)[[[0, 3, 1]] * 5]).tolist() == [0, 0, 0]

    @pytest.mark.parametrize("name", COMMITTEE)
    def test_heads_that_split_evenly_and_surely_are_worth_most(self, name: str) -> None:
        rng = np.random.default_rng(0)
        samples = rng.dirichlet(np.ones(4), (4, 50))
        samples[:, 17] = np.eye(4)

        found = scores(name, samples)

        assert found.argmax() == 17

    def test_agreeing_to_be_unsure_is_no_disagreement(self) -> None:
        unsure = np.full((5, 1, 4), 0.25)

        found = {name: float(scores(name, unsure)[0]) for name in ("bald", "kl_divergence", "mean_std", "vote_entropy")}

        assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-6)
        assert scores("consensus_entropy", unsure) == pytest.approx(np.log(4))


class TestGini:
    def test_it_is_its_formula_between_certain_and_uniform(self) -> None:
        probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 100).astype(np.float32)
        probabilities[3], probabilities[4] = np.eye(4)[0], 0.25

        found = kernels.gini(probabilities)

        assert np.allclose(found, [1 - sum(x * x for x in row.astype(float)) for row in probabilities], atol=1e-6)
        assert (found.argmin(), found.argmax()) == (3, 4)
        assert found[3] == 0

    @given(draw.lists(draw.tuples(draw.integers(0, 499), draw.booleans()), min_size=1, unique_by=lambda it: it[0]))
    def test_with_two_classes_all_uncertainties_are_one_order(self, drawn: list[tuple[int, bool]]) -> None:
        share = np.array([steps / 1000 if low else 1 - steps / 1000 for steps, low in drawn], dtype=np.float32)
        probabilities = np.stack([share, 1 - share], axis=1)
        request = Request(ids=np.arange(len(share)), budget=len(share), probabilities=probabilities)

        for name in ("gini", "margin", "entropy", "least_confidence", "ratio"):
            assert run(create(name), request).ids.tolist() == np.argsort([-steps for steps, _ in drawn]).tolist()


class TestHead:
    def test_egl_is_the_expected_length_of_the_gradient(self, pool: MakePool) -> None:
        request = pool(100, budget=100)

        selection = run(create("egl"), request)

        for row in range(100):
            p, h = request.probabilities[row].astype(float), request.embeddings[row].astype(float)
            gradients = [np.outer(p - np.eye(5)[k], h) for k in range(5)]
            expected = sum(p[k] * np.linalg.norm(gradients[k]) for k in range(5))
            assert selection.utilities[selection.ids == request.ids[row]] == pytest.approx(expected, rel=1e-5)

    def test_deepfool_is_the_least_step_that_changes_the_prediction(self, pool: MakePool) -> None:
        request = pool(60, budget=60)
        weights, bias = request.head_weights.astype(float), request.head_bias.astype(float)

        selection = run(create("deepfool"), request)

        assert (np.diff(selection.utilities) <= 0).all()
        for row in range(60):
            h = request.embeddings[row].astype(float)
            distance = -float(selection.utilities[selection.ids == request.ids[row]][0])
            top = int((h @ weights + bias).argmax())
            steps = [weights[:, k] - weights[:, top] for k in range(5) if k != top]
            beyond = [h + step / np.linalg.norm(step) * distance * 1.001 for step in steps]
            short = [h + step / np.linalg.norm(step) * distance * 0.999 for step in steps]
            assert any((x @ weights + bias).argmax() != top for x in beyond)
            assert all((x @ weights + bias).argmax() == top for x in short)

    def test_deepfool_takes_a_head_of_equal_classes_or_of_one(self, pool: MakePool) -> None:
        same = replace(pool(), head_weights=np.ones((16, 5), np.float32), head_bias=np.zeros(5, np.float32))
        one = pool(classes=1, probabilities=None, logits=None, samples=None, votes=None, labels=0)
        one = replace(one, head_weights=np.ones((16, 1), np.float32), head_bias=np.zeros(1, np.float32))

        assert run(create("deepfool"), same).utilities.tolist() == [0] * 10
        assert np.isfinite(run(create("deepfool"), one).utilities).all()

    def test_density_is_the_mean_cosine_to_the_pool(self, pool: MakePool) -> None:
        request = pool(80, budget=80)

        selection = run(create("density"), request)

        unit = request.embeddings.astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        expected = (unit @ unit.T).mean(axis=1)
        assert np.allclose(selection.utilities, np.sort(expected)[::-1], atol=1e-6)


@pytest.mark.parametrize("name", ["margin", "entropy", "least_confidence", "ratio", "gini", "egl", *COMMITTEE])
def test_no_item_is_below_the_lowest_that_the_strategy_names(name: str, pool: MakePool) -> None:
    strategy = create(name)
    assert isinstance(strategy, Pointwise)
    request = pool(5, budget=5, probabilities=np.eye(5, dtype=np.float32), samples=np.eye(5)[[range(5)] * 3])

    assert np.allclose(run(strategy, request).utilities, strategy.lowest, atol=1e-6)


@pytest.mark.parametrize("name", ["gini", "egl", "deepfool"])
def test_the_names_of_the_classes_do_not_matter(name: str, pool: MakePool) -> None:
    request, turn = pool(), [3, 0, 4, 1, 2]
    turned = replace(
        request,
        probabilities=request.probabilities[:, turn],
        head_weights=request.head_weights[:, turn],
        head_bias=request.head_bias[turn],
    )

    assert run(create(name), turned).ids.tolist() == run(create(name), request).ids.tolist()

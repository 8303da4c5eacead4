"""Strategies around strategies: how they are named, what they do to the picks of others, and the chances they log."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import chisquare, rankdata

from backend.settings import StrategySection
from strategies import MissingInput, Needs, Request, UnknownStrategy, WrongParameter, WrongValue, create, run

MakePool = Callable[..., Request]
Array = np.ndarray[Any, Any]


def picks(request: Request, name: str, **values: Any) -> list[str]:
    return [str(i) for i in run(create(name, **values), request).ids.tolist()]


def estimates(request: Request, seeds: int, name: str, **values: Any) -> tuple[float, float, float]:
    """Of many batches: the mean of the pool's total as a batch estimates it, its standard error, and the truth."""
    amounts = dict(zip(request.ids.tolist(), np.linspace(1, 9, len(request.ids)) ** 2, strict=True))
    strategy, found = create(name, **values), []
    for seed in range(seeds):
        batch = run(strategy, replace(request, seed=seed))
        found.append(sum(amounts[i] / p for i, p in zip(batch.ids.tolist(), batch.propensities, strict=True)))
    return float(np.mean(found)), float(np.std(found) / seeds**0.5), sum(amounts.values())


class TestNames:
    @pytest.mark.parametrize(
        "written",
        [
            "{name: distinct, parameters: {of: max_herding}}",
            "{name: distinct, parameters: {of: {name: max_herding}}}",
            "{name: distinct, parameters: {of: {name: max_herding, parameters: {width: 1}}, cosine: 0.95}}",
        ],
    )
    def test_yaml_names_a_part_by_name_or_with_its_parameters(self, written: str) -> None:
        section = StrategySection.model_validate(yaml.safe_load(written))

        strategy = create(section.name, **section.parameters)

        assert strategy == create("distinct", of=create("max_herding"))
        assert hash(strategy) == hash(create("distinct", of="max_herding"))

    def test_wrappers_go_into_wrappers(self, pool: MakePool) -> None:
        quota = {"name": "class_quota", "parameters": {"of": {"name": "per_cost", "parameters": {"of": "bald"}}}}
        strategy = create("random_share", of={"name": "distinct", "parameters": {"of": quota}})

        selection = run(strategy, pool())

        wanted = Needs.SAMPLES | Needs.COSTS | Needs.PROBABILITIES | Needs.EMBEDDINGS
        assert strategy.needs == wanted
        assert strategy.uses == Needs.LABELLED
        assert selection.diagnostics["strategy"] == "random_share"
        assert selection.diagnostics["of.of.of.strategy"] == "per_cost"

    def test_a_part_misses_its_inputs_by_the_wrappers_name(self, pool: MakePool) -> None:
        with pytest.raises(MissingInput, match="'sub_sample' needs samples"):
            run(create("sub_sample", of="bald"), replace(pool(), samples=None))

    def test_the_policy_of_a_part_is_told(self, pool: MakePool) -> None:
        selection = run(create("distinct", of="auto"), pool())

        assert "typiclust" in str(selection.diagnostics["policy"])
        assert "chosen" not in selection.diagnostics

    @pytest.mark.parametrize(
        ("value", "error", "complaint"),
        [
            ("margn", UnknownStrategy, "Did you mean 'margin'"),
            ({"name": "max_herding", "parameters": {"widht": 1}}, WrongParameter, "Did you mean 'width'"),
            ({"name": "max_herding", "parameters": {"width": -1}}, WrongValue, "'width' of strategy 'max_herding'"),
            ({"name": "margin", "params": {}}, WrongValue, "a mapping of name and parameters"),
            ({"parameters": {}}, WrongValue, "a mapping of name and parameters"),
            ({"name": "margin", "parameters": {1: 2}}, WrongValue, "a mapping of name and parameters"),
            (7, WrongValue, "'of' of strategy 'distinct' must be a strategy's name"),
        ],
    )
    def test_a_part_that_does_not_exist_is_refused_when_named(
        self, value: Any, error: type[Exception], complaint: str
    ) -> None:
        with pytest.raises(error, match=complaint):
            create("distinct", of=value)

    @pytest.mark.parametrize(("name", "parameter"), [("product", "by"), ("per_cost", "of"), ("stochastic", "of")])
    def test_numbers_are_made_from_numbers_only(self, name: str, parameter: str) -> None:
        with pytest.raises(WrongValue, match=f"'{parameter}' of strategy '{name}' must be a strategy that scores each"):
            create(name, **{parameter: "k_center_greedy"})

    @pytest.mark.parametrize("value", ["Power", None, 1])
    def test_a_word_that_is_no_choice_is_refused_with_the_choices(self, value: object) -> None:
        with pytest.raises(WrongValue, match="must be one of power, gibbs, rank"):
            create("stochastic", noise=value)


class TestFilters:
    @pytest.mark.parametrize("cosine", [0.4, 0.8])
    def test_distinct_skips_what_is_like_a_pick_or_a_label(self, pool: MakePool, cosine: float) -> None:
        request = pool(budget=12)
        both = np.concatenate([request.embeddings, request.labelled_embeddings]).astype(float)
        both -= both.mean(axis=0)
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        kept: list[int] = []
        for item in picks(replace(request, budget=300), "margin"):
            row = int(item[5:])
            if all(both[row] @ other < cosine for other in [*both[300:], *both[kept]]) and len(kept) < 12:
                kept.append(row)

        selection = run(create("distinct", cosine=cosine, depth=30), request)

        assert selection.ids[: len(kept)].tolist() == request.ids[kept].tolist()
        assert selection.diagnostics["filled_up"] == 12 - len(kept)

    @pytest.mark.parametrize(("share", "most"), [(0.3, 6), (0.0, 4), (1.0, 20)])
    def test_class_quota_stops_a_class_at_its_share(self, pool: MakePool, share: float, most: int) -> None:
        request = pool(budget=20)
        probabilities = request.probabilities ** np.array([0.4, 1, 1, 1, 1], dtype=np.float32)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        request = replace(request, probabilities=probabilities)
        counts: Counter[int] = Counter()
        plain = []
        for item in picks(replace(request, budget=300), "margin"):
            label = int(probabilities[int(item[5:])].argmax())
            if counts[label] < most and len(plain) < 20:
                plain.append(item)
                counts[label] += 1

        assert picks(request, "class_quota", share=share) == plain

    def test_a_batch_that_a_filter_cannot_fill_goes_on_in_order(self, pool: MakePool) -> None:
        request = pool(40, budget=10, probabilities=np.tile(np.float32([0.6, 0.1, 0.1, 0.1, 0.1]), (40, 1)))

        selection = run(create("class_quota", share=0.3), request)

        assert selection.ids.tolist() == picks(request, "margin")
        assert selection.diagnostics["filled_up"] == 7

    def test_balance_is_the_strategy_in_every_group(self, pool: MakePool) -> None:
        request = pool(budget=22)
        groups = np.array([3] * 2 + [-8] * 100 + [5] * 150 + [11] * 48)
        request = replace(request, groups=groups)

        selection = run(create("metadata_balance"), request)

        rows = np.array([int(i[5:]) for i in selection.ids.tolist()])
        counts = Counter(groups[rows].tolist())
        assert counts[3] == 2
        assert sorted(counts[g] for g in (-8, 5, 11)) == [6, 7, 7]
        for group in (3, -8, 5, 11):
            others = frozenset(request.ids[groups != group].tolist())
            alone = picks(replace(request, budget=counts[group], excluded=others), "margin")
            assert [i for i, g in zip(selection.ids.tolist(), groups[rows], strict=True) if g == group] == alone
        assert sorted(groups[rows[:4]].tolist()) == [-8, 3, 5, 11]

    def test_with_more_groups_than_picks_every_group_has_its_chance(self, pool: MakePool) -> None:
        request = pool(60, budget=4, groups=np.arange(60) % 20)
        counts: Counter[int] = Counter()

        for seed in range(300):
            selection = run(create("metadata_balance"), replace(request, seed=seed))
            drawn = {int(i[5:]) % 20 for i in selection.ids.tolist()}
            assert len(drawn) == 4
            counts.update(drawn)

        assert chisquare([counts[g] for g in range(20)]).pvalue > 1e-4


class TestChances:
    """Horvitz-Thompson: a batch weighted by 1 / propensity estimates the pool's total without bias."""

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("random_share", {"share": 0.4}),
            ("random_share", {"share": 1.0}),
            ("random_share", {"of": "max_herding", "share": 0.4}),
            ("sub_sample", {"of": "random", "size": 20}),
            ("sub_sample", {"of": {"name": "random_share", "parameters": {"share": 0.5}}, "size": 20}),
            ("metadata_balance", {"of": "random"}),
            ("metadata_balance", {"of": {"name": "random_share", "parameters": {"share": 0.3}}}),
            ("stochastic", {}),
            ("stochastic", {"noise": "gibbs", "sharpness": 2.0}),
            ("stochastic", {"noise": "rank", "sharpness": 0.5}),
        ],
        ids=str,
    )
    def test_they_weigh_a_batch_without_bias(self, pool: MakePool, name: str, values: dict[str, Any]) -> None:
        request = pool(40, budget=12, dimensions=4)

        mean, error, truth = estimates(request, 250, name, **values)

        assert abs(mean - truth) < 4 * error + 1e-9

    def test_groups_drawn_at_random_are_in_the_chance(self, pool: MakePool) -> None:
        request = pool(40, budget=6, groups=np.arange(40) % 9)

        mean, error, truth = estimates(request, 300, "metadata_balance", of="random")

        assert abs(mean - truth) < 4 * error

    def test_a_share_is_drawn_evenly_from_what_is_left(self, pool: MakePool) -> None:
        request = pool(20, budget=6)
        best = picks(replace(request, budget=4), "margin")
        counts: Counter[str] = Counter()

        for seed in range(500):
            selection = run(create("random_share", share=0.3), replace(request, seed=seed))
            drawn = [i for i, p in zip(selection.ids.tolist(), selection.propensities, strict=True) if p < 1]
            assert [i for i in selection.ids.tolist() if i not in drawn] == best
            assert set(selection.propensities.tolist()) == {1.0, 2 / 16}
            counts.update(drawn)

        assert set(counts) == set(request.ids.tolist()) - set(best)
        assert chisquare(list(counts.values())).pvalue > 1e-4

    def test_the_share_stands_anywhere_in_the_batch(self, pool: MakePool) -> None:
        places: Counter[int] = Counter()

        for seed in range(300):
            selection = run(create("random_share", share=0.2), pool(40, seed=seed))
            places.update(np.flatnonzero(selection.propensities < 1).tolist())

        assert chisquare([places[place] for place in range(10)]).pvalue > 1e-4

    def test_a_sub_sample_is_the_strategy_on_a_part_of_the_pool(self, pool: MakePool) -> None:
        request = pool()
        seen = set()

        for seed in range(40):
            selection = run(create("sub_sample", size=60), replace(request, seed=seed))
            order = picks(replace(request, budget=300), "margin")
            places = [order.index(i) for i in selection.ids.tolist()]
            assert places == sorted(places)
            assert np.isnan(selection.propensities).all()
            assert selection.diagnostics["seen"] == 60
            seen |= set(selection.ids.tolist())

        assert len(seen) > 40
        assert picks(request, "sub_sample", size=300) == picks(request, "margin")

    def test_the_first_pick_of_a_lottery_is_drawn_by_its_weight(self, pool: MakePool) -> None:
        probabilities = np.array([[0.5, 0.5], [0.6, 0.4], [0.75, 0.25], [0.9, 0.1]], dtype=np.float32)
        request = Request(ids=np.arange(4), budget=1, probabilities=probabilities)
        worth = 1 - np.abs(probabilities[:, 0] - probabilities[:, 1]).astype(float)
        weights = {
            "power": worth**2.0,
            "gibbs": np.exp(2.0 * worth),
            "rank": np.arange(1, 5) ** -2.0,
        }

        for noise, weight in weights.items():
            strategy = create("stochastic", noise=noise, sharpness=2.0)
            first = [int(run(strategy, replace(request, seed=seed)).ids[0]) for seed in range(700)]
            counts = np.bincount(first, minlength=4)
            assert chisquare(counts, 700 * weight / weight.sum()).pvalue > 1e-4

    @pytest.mark.parametrize("noise", ["power", "rank"])
    def test_a_sharp_lottery_is_no_lottery(self, pool: MakePool, noise: str) -> None:
        order = np.linspace(0.51, 0.99, 30)
        probabilities = np.stack([order, 1 - order], axis=1).astype(np.float32)
        request = Request(ids=np.arange(30), budget=5, probabilities=probabilities)

        selection = run(create("stochastic", noise=noise, sharpness=1000.0), request)

        assert selection.ids.tolist() == list(range(5))
        assert (selection.propensities > 0.99).all()


class TestArithmetic:
    @pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize(("of", "lowest"), [("margin", -1), ("bald", 0), ("deepfool", None)])
    def test_per_cost_divides_what_an_item_is_worth(
        self, pool: MakePool, of: str, lowest: float | None, power: float
    ) -> None:
        request = pool(50, budget=50)
        alone = run(create(of), request)
        rows = np.searchsorted(request.ids, alone.ids)
        worth = alone.utilities - (alone.utilities.min() if lowest is None else lowest)
        expected = worth / request.costs[rows].astype(float) ** power

        selection = run(create("per_cost", of=of, power=power), request)

        assert np.allclose(selection.utilities, np.sort(expected)[::-1], rtol=1e-6)
        assert selection.ids[0] == alone.ids[expected.argmax()]

    def test_of_two_alike_the_cheaper_is_picked_whatever_the_sign_of_the_utility(self, pool: MakePool) -> None:
        request = pool(2, budget=1, probabilities=np.full((2, 5), 0.2, np.float32), costs=np.array([3.0, 2.0]))

        assert picks(request, "per_cost") == ["item-00001"]

    @pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
    def test_product_multiplies_places(self, pool: MakePool, weight: float) -> None:
        request = pool(80, budget=80)
        places = []
        for name in ("variation_ratio", "density"):  # the first has ties
            alone = run(create(name), request)
            utilities = alone.utilities[np.argsort(alone.ids)]
            places.append(rankdata(utilities) / 80)

        selection = run(create("product", of="variation_ratio", weight=weight), request)

        expected = places[0] * places[1] ** weight
        order = sorted(range(80), key=lambda row: (-round(expected[row], 12), row))
        assert selection.ids.tolist() == request.ids[order].tolist()
        assert np.allclose(selection.utilities, expected[order])

    def test_reasons_tell_what_the_number_was_made_from(self, pool: MakePool) -> None:
        nested = {"name": "product", "parameters": {"by": "egl"}}

        reason = run(create("per_cost", of=nested), pool()).reasons[0]

        assert reason.startswith("it is worth ")
        assert "(it stands above" in reason
        assert "best classes are" in reason
        assert reason.endswith("on average))")

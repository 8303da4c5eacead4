"""What every strategy promises, asked of every strategy that is registered."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw

from strategies import Needs, Request, Selection, Strategy, Task, create, names, run
from tests.strategies.conftest import multi_label

MakePool = Callable[..., Request]
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {}) for name in names() if Task.CLASSIFICATION in create(name).tasks),
    ("auto", {"labels_per_class": 0}),
    ("distinct", {"of": "k_center_greedy"}),
    ("k_center_greedy", {"shortlist": 7}),
    ("margin_clusters", {"clusters": 3}),
    ("max_herding", {"candidates": 40, "targets": 50}),
    ("random_share", {"of": {"name": "metadata_balance", "parameters": {"of": "stochastic"}}}),
    ("sub_sample", {"of": "auto", "size": 20}),
    ("typiclust", {"candidates": 40, "clusters": 6}),
)

OF_SETS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {"over": over}) for name in ("entropy", "least_confidence", "margin") for over in ("mean", "max")),
    ("margin_clusters", {}),
    ("auto", {"labels_per_class": 0}),
    ("stochastic", {}),
)
"""Strategies that look at what a model says of several labels; the others see no difference."""

PER_ITEM = ("probabilities", "logits", "embeddings", "costs", "groups", "votes", "deviations")


def reordered(request: Request, order: np.ndarray[Any, Any]) -> Request:
    cut = {n: getattr(request, n)[order] for n in ("ids", *PER_ITEM)}
    return replace(request, samples=request.samples[:, order], **cut)


def with_rows(request: Request, name: str, rows: list[int], value: float) -> Request:
    array = getattr(request, name).copy()
    array[rows] = value
    return replace(request, **{name: array})


def same(one: Selection, other: Selection) -> bool:
    return one.ids.tolist() == other.ids.tolist() and np.allclose(one.utilities, other.utilities, rtol=1e-4, atol=1e-7)


class Promises:
    @pytest.fixture
    def strategy(self, name: str, values: dict[str, Any]) -> Strategy:
        return create(name, **values)

    def test_it_picks_as_many_distinct_candidates_as_asked(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool(budget=25)

        selection = run(strategy, request)

        assert len(selection) == len(set(selection.ids.tolist())) == 25
        assert set(selection.ids.tolist()) <= set(request.ids.tolist())
        assert selection.utilities.dtype == np.float64
        assert all(len(reason) > 10 and "{" not in reason for reason in selection.reasons)

    @pytest.mark.parametrize("budget", [30, 31, 1000])
    def test_a_budget_beyond_the_pool_orders_the_whole_pool(
        self, strategy: Strategy, pool: MakePool, budget: int
    ) -> None:
        request = pool(30, budget=budget)

        assert sorted(run(strategy, request).ids.tolist()) == request.ids.tolist()

    @pytest.mark.parametrize(("n", "budget"), [(0, 10), (30, 0)])
    def test_nothing_to_pick_gives_an_empty_selection(
        self, strategy: Strategy, pool: MakePool, n: int, budget: int
    ) -> None:
        selection = run(strategy, pool(n, budget=budget))

        assert len(selection) == 0
        assert selection.ids.dtype == pool(n).ids.dtype

    def test_one_candidate_is_picked(self, strategy: Strategy, pool: MakePool) -> None:
        assert run(strategy, pool(1)).ids.tolist() == ["item-00000"]

    def test_the_same_seed_gives_the_same_selection(self, strategy: Strategy, pool: MakePool) -> None:
        one, other = run(strategy, pool()), run(strategy, pool())

        assert same(one, other)
        assert one.reasons == other.reasons

    def test_the_order_of_the_pool_does_not_matter(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool()
        order = np.random.default_rng(3).permutation(len(request.ids))

        assert same(run(strategy, reordered(request, order)), run(strategy, request))

    def test_the_size_of_a_block_does_not_matter(
        self, strategy: Strategy, pool: MakePool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = run(strategy, pool())
        monkeypatch.setattr("strategies.kernels.blocks.BLOCK_BYTES", 3000)

        assert same(run(strategy, pool()), whole)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_row_that_is_not_finite_is_never_picked(self, strategy: Strategy, pool: MakePool, value: float) -> None:
        request = pool(30, budget=30)
        arrays = {
            "probabilities": Needs.PROBABILITIES, "embeddings": Needs.EMBEDDINGS, "deviations": Needs.DEVIATIONS
        }  # fmt: skip
        needed = [name for name, need in arrays.items() if need in strategy.needs]
        for array in needed:
            request = with_rows(request, array, [3, 17], value)

        selection = run(strategy, request)

        lost = {"item-00003", "item-00017"} if needed else set()
        assert set(selection.ids.tolist()) == set(request.ids.tolist()) - lost
        assert selection.diagnostics["dropped"] == len(lost)

    def test_rows_of_zeros_are_no_trouble(self, strategy: Strategy, pool: MakePool) -> None:
        request = with_rows(with_rows(pool(30, budget=30), "embeddings", [1, 2, 3], 0), "probabilities", [4, 5], 0)

        selection = run(strategy, request)

        assert np.isfinite(selection.utilities).all()
        assert len(selection) == 30 - int(selection.diagnostics["dropped"])

    def test_duplicates_are_no_trouble(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool(60, budget=20)
        double = reordered(request, np.repeat(np.arange(20), 3))
        double = replace(double, ids=request.ids)
        order = np.random.default_rng(5).permutation(60)

        selection = run(strategy, double)

        assert len(set(selection.ids.tolist())) == 20
        assert same(run(strategy, reordered(double, order)), selection)

    def test_a_pool_of_one_item_repeated_goes_by_id(self, strategy: Strategy, pool: MakePool) -> None:
        request = reordered(pool(40, budget=40), np.zeros(40, dtype=int))
        request = replace(request, ids=pool(40).ids)

        assert sorted(run(strategy, request).ids.tolist()) == request.ids.tolist()

    @pytest.mark.parametrize("labelled", ["none", "empty"])
    def test_it_starts_without_labels(self, strategy: Strategy, pool: MakePool, labelled: str) -> None:
        request = pool(labels=0)
        if labelled == "none":
            request = replace(request, labelled_embeddings=None, labelled_classes=None)

        assert len(run(strategy, request)) == 10

    def test_excluded_items_are_never_picked(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool(40, budget=40)
        excluded = frozenset(request.ids[::3].tolist()) | {"not-in-the-pool"}

        selection = run(strategy, replace(request, excluded=excluded))

        assert set(selection.ids.tolist()) == set(request.ids.tolist()) - excluded
        assert selection.diagnostics["excluded"] == len(excluded) - 1

    def test_excluding_is_the_same_as_never_having_been_there(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool()
        rows = np.flatnonzero(np.arange(300) % 4)

        without = run(strategy, replace(request, excluded=frozenset(request.ids[::4].tolist())))

        assert same(without, run(strategy, reordered(request, rows)))

    def test_inputs_are_not_written(self, strategy: Strategy, pool: MakePool) -> None:
        request = pool()
        before = {f.name: np.copy(getattr(request, f.name)) for f in fields(request) if f.name != "excluded"}
        for name in before:
            array = getattr(request, name)
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

        run(strategy, request)

        assert all(np.array_equal(getattr(request, name), copy) for name, copy in before.items())

    def test_whole_numbers_are_ids_too(self, strategy: Strategy, pool: MakePool) -> None:
        request = replace(pool(), ids=np.arange(300) * 7 - 900)

        selection = run(strategy, request)

        assert selection.ids.dtype == np.int64
        assert set(selection.ids.tolist()) <= set(request.ids.tolist())

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(n=draw.integers(0, 14), budget=draw.integers(0, 16), seed=draw.integers(-(2**63), 2**64), data=draw.data())
    def test_the_promises_hold_for_any_small_pool(
        self, strategy: Strategy, pool: MakePool, n: int, budget: int, seed: int, data: draw.DataObject
    ) -> None:
        labels = data.draw(draw.integers(0, 4))
        rows = np.array(data.draw(draw.lists(draw.integers(0, 13), min_size=n, max_size=n)), dtype=int)
        request = reordered(pool(14, labels=labels, dimensions=3, budget=budget, seed=seed), rows)
        request = replace(request, ids=pool(n).ids)
        excluded = frozenset(data.draw(draw.sets(draw.sampled_from(pool(14).ids.tolist()))))
        order = np.array(data.draw(draw.permutations(range(n))), dtype=int)

        selection = run(strategy, replace(request, excluded=excluded))

        free = set(request.ids.tolist()) - excluded
        assert len(selection) == len(set(selection.ids.tolist())) == min(budget, len(free))
        assert set(selection.ids.tolist()) <= free
        assert same(run(strategy, replace(reordered(request, order), excluded=excluded)), selection)


@pytest.mark.parametrize(("name", "values"), VARIANTS, ids=[f"{n}-{v}" if v else n for n, v in VARIANTS])
class TestContract(Promises):
    """Where every item has one class."""


@pytest.mark.parametrize(("name", "values"), OF_SETS, ids=[f"{n}-{v}" if v else n for n, v in OF_SETS])
class TestMultiLabelContract(Promises):
    """Where an item may have several."""

    @pytest.fixture
    def pool(self, pool: MakePool) -> MakePool:
        return lambda *arguments, **changes: multi_label(pool(*arguments, **changes))


@pytest.mark.parametrize(("name", "values"), [("predictive_deviation", {})])
class TestNumberContract(Promises):
    """Where the labels are numbers."""

    @pytest.fixture
    def pool(self, pool: MakePool) -> MakePool:
        return lambda *arguments, **changes: replace(pool(*arguments, **changes), task=Task.REGRESSION)


def test_no_strategy_holds_a_copy_of_the_pool(tmp_path: Any) -> None:
    """Under a hard limit of memory: 80 MB more than before, where float32 embeddings of the pool are 102 MB."""
    result = subprocess.run([sys.executable, "-c", _UNDER_A_LIMIT, str(tmp_path)], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [name for name in names() if name != "predictive_deviation"]


_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np
from strategies import Request, create, names, run
from strategies.kernels import blocks

def pool(n, d, folder):
    rng = np.random.default_rng(0)
    embeddings = np.memmap(folder / f"{n}.f16", dtype=np.float16, mode="w+", shape=(n, d))
    for start in range(0, n, 10_000):
        embeddings[start:start + 10_000] = rng.standard_normal((min(10_000, n - start), d), dtype=np.float32)
    embeddings.flush()
    embeddings = np.memmap(folder / f"{n}.f16", dtype=np.float16, mode="r", shape=(n, d))
    return Request(ids=np.arange(n), budget=20, embeddings=embeddings,
                   probabilities=rng.dirichlet(np.ones(10), n).astype(np.float32),
                   labelled_embeddings=embeddings[:20], labelled_classes=np.arange(20) % 10,
                   samples=rng.dirichlet(np.ones(10), (3, n)).astype(np.float32),
                   head_weights=rng.normal(size=(d, 10)).astype(np.float32), head_bias=np.zeros(10, np.float32),
                   costs=rng.uniform(1, 9, n).astype(np.float32), groups=np.arange(n) % 7,
                   targets=embeddings[:9], votes=np.where(np.arange(3 * n) % 20, -1, 1).reshape(n, 3))

def data_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData"))

blocks.BLOCK_BYTES = 4 << 20
small = {"max_herding": {"candidates": 5000, "targets": 500},
         "uherding": {"candidates": 5000, "targets": 500}, "facility_location": {"candidates": 5000, "targets": 500},
         "cluster_margin": {"candidates": 2000}, "prob_cover": {"candidates": 5000}}
folder = Path(sys.argv[1])
little, large = pool(3_000, 256, folder), pool(100_000, 256, folder)
for name in names():
    if name == "predictive_deviation":
        continue
    strategy = create(name, **small.get(name, {}))
    run(strategy, little)
    limit = data_bytes() + (80 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    run(strategy, large)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(name)
"""

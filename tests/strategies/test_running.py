"""What `run` makes sure of, whatever the strategy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from strategies import BadRequest, BadSelection, Cost, MissingInput, Needs, Request, Selection, Strategy, run
from strategies.running import INPUTS, WHOLE

MakePool = Callable[..., Request]
FLAGS = [need for need in Needs if need]


@dataclass(frozen=True)
class Probe(Strategy):
    """Picks from the top of the pool and keeps what it was given; its answer can be spoiled."""

    needs = Needs.NOTHING
    cost = Cost.POINTWISE
    answer: Callable[[Request], Selection] = lambda request: request.take(
        range(request.budget), range(request.budget), reason="it is at the top"
    )

    def select(self, request: Request) -> Selection:
        return self.answer(request)


def probe(
    needs: Needs, uses: Needs = Needs.NOTHING, answer: Callable[[Request], Selection] | None = None
) -> tuple[Strategy, list[Request]]:
    seen: list[Request] = []

    def keep(request: Request) -> Selection:
        seen.append(request)
        return (answer or Probe.answer)(request)

    kind = dataclass(frozen=True)(type("Keeper", (Probe,), {"needs": needs, "uses": uses}))
    return kind(answer=keep), seen


@pytest.mark.parametrize("need", FLAGS)
class TestNeeds:
    def test_what_is_needed_and_missing_is_an_error_that_names_it(self, need: Needs, pool: MakePool) -> None:
        strategy, _ = probe(need)

        for name in INPUTS[need]:
            with pytest.raises(MissingInput, match=name):
                run(strategy, replace(pool(), **{name: None}))

    def test_what_is_used_and_missing_is_none(self, need: Needs, pool: MakePool) -> None:
        strategy, seen = probe(Needs.NOTHING, uses=need)

        run(strategy, replace(pool(), **dict.fromkeys(INPUTS[need])))

        assert [getattr(seen[0], name) for name in INPUTS[need]] == [None] * len(INPUTS[need])

    @pytest.mark.parametrize("how", ["needs", "uses"])
    def test_it_gets_what_it_declares_and_nothing_else(self, need: Needs, how: str, pool: MakePool) -> None:
        strategy, seen = probe(need) if how == "needs" else probe(Needs.NOTHING, uses=need)

        run(strategy, pool())

        given = {name for names in INPUTS.values() for name in names if getattr(seen[0], name) is not None}
        assert given == set(INPUTS[need])

    def test_arrays_stay_aligned_with_the_ids(self, need: Needs, pool: MakePool) -> None:
        request = pool(40)
        order = np.random.default_rng(0).permutation(40)
        mixed = replace(
            request,
            ids=request.ids[order],
            excluded=frozenset(request.ids[:9].tolist()),
            probabilities=request.probabilities[order],
            logits=request.logits[order],
            embeddings=request.embeddings[order],
            costs=request.costs[order],
            groups=request.groups[order],
            deviations=request.deviations[order],
            votes=request.votes[order],
            samples=request.samples[:, order],
        )
        strategy, seen = probe(need)

        run(strategy, mixed)

        assert seen[0].ids.tolist() == request.ids[9:].tolist()
        for name in INPUTS[need]:
            whole = getattr(request, name)
            rows = {"samples": np.s_[:, 9:]}.get(name, np.s_[:] if need in WHOLE else np.s_[9:])
            assert np.array_equal(getattr(seen[0], name), whole[rows])

    def test_rows_that_are_not_finite_never_reach_it(self, need: Needs, pool: MakePool) -> None:
        if need in Needs.LINEAR_HEAD | Needs.TARGETS | Needs.GROUPS | Needs.VOTES:
            pytest.skip("a head and targets are refused as a whole, and a whole number is finite")
        request = pool(20)
        name = INPUTS[need][0]
        array = getattr(request, name).copy()
        array[(slice(None), 4) if name == "samples" else 4] = np.nan
        strategy, seen = probe(need)

        selection = run(strategy, replace(request, **{name: array}))

        lost = 0 if need is Needs.LABELLED else 1
        assert len(seen[0].ids) == 20 - lost
        assert selection.diagnostics["dropped"] == lost

    def test_arrays_are_read_only_and_not_copied_where_ids_come_sorted(self, need: Needs, pool: MakePool) -> None:
        request = pool()
        strategy, seen = probe(need)

        run(strategy, request)

        for name in INPUTS[need]:
            given = getattr(seen[0], name)
            assert not given.flags.writeable
            assert np.shares_memory(given, getattr(request, name))


def spoiled(change: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Selection]:
    def answer(request: Request) -> Selection:
        return replace(Probe.answer(request), **change(request))

    return answer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: {"ids": np.repeat(r.ids[:1], r.budget)}, "twice"),
        (lambda r: {"ids": np.array([f"stranger{i}" for i in range(r.budget)])}, "not a candidate"),
        (lambda r: {"utilities": np.full(r.budget, np.nan)}, "not finite"),
        (lambda r: {"reasons": ()}, "differ in length"),
        (
            lambda r: {
                "ids": r.ids[:2],
                "utilities": np.zeros(2),
                "propensities": np.zeros(2),
                "reasons": ("", ""),
            },
            "2 items instead of 10",
        ),
    ],
)
def test_an_answer_that_breaks_the_contract_is_refused(
    change: Callable[[Request], dict[str, Any]], complaint: str, pool: MakePool
) -> None:
    strategy, _ = probe(Needs.NOTHING, answer=spoiled(change))

    with pytest.raises(BadSelection, match=complaint):
        run(strategy, pool())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ids": np.array(["same"] * 300)}, "more than once"),
        ({"ids": np.array([0.5] * 300)}, "int64 or unicode"),
        ({"excluded": frozenset({17})}, "excluded holds 17"),
        ({"budget": -1}, "below zero"),
        ({"probabilities": np.full((300, 5), 0.9, dtype=np.float32)}, "do not sum to one"),
        ({"probabilities": np.full((299, 5), 0.2, dtype=np.float32)}, "299"),
        ({"probabilities": np.full((300, 4), 0.25, dtype=np.float32)}, "4 columns for 5 classes"),
        ({"samples": np.ones((0, 300, 5), dtype=np.float32)}, "of no head"),
        ({"costs": np.arange(300.0)}, "item-00000 costs nothing"),
        ({"costs": np.ones(299)}, "299"),
        ({"groups": np.ones(300)}, "float64"),
        ({"votes": np.ones((299, 2), dtype=int)}, "299"),
        ({"labelled_classes": np.arange(3)}, "12 labelled embeddings, but 3"),
        ({"labelled_classes": np.full(12, 5)}, "span 5 to 5 for 5 classes"),
        ({"labelled_classes": np.full(12, 0.5)}, "not integers"),
        ({"labelled_embeddings": np.zeros((12, 3), dtype=np.float32)}, "do not fit"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str, pool: MakePool) -> None:
    strategy, _ = probe(Needs.PROBABILITIES)

    with pytest.raises(BadRequest, match=complaint):
        run(strategy, replace(pool(), **change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"head_weights": np.ones((3, 5))}, r"weights \(3, 5\).* 16 dimensions and 5 classes"),
        ({"head_bias": np.ones(4)}, r"bias \(4,\)"),
        ({"head_bias": np.full(5, np.nan)}, "not finite"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_where_it_is_used(
    change: dict[str, Any], complaint: str, pool: MakePool
) -> None:
    request = replace(pool(), **change)

    with pytest.raises(BadRequest, match=complaint):
        run(probe(Needs.LINEAR_HEAD | Needs.EMBEDDINGS)[0], request)

    assert len(run(probe(Needs.EMBEDDINGS)[0], request)) == 10


@pytest.mark.parametrize(
    ("need", "change", "complaint"),
    [
        (Needs.TARGETS, {"targets": np.full((2, 16), np.inf)}, "target that is not finite"),
        (Needs.TARGETS, {"targets": np.ones((2, 3))}, r"targets \(2, 3\) do not fit"),
        (Needs.VOTES, {"votes": np.full((300, 2), 5)}, "votes span 5 to 5 for 5 classes"),
        (Needs.VOTES, {"votes": np.full((300, 2), -2)}, "votes span -2"),
    ],
)
def test_targets_and_votes_that_make_no_sense_are_refused_where_they_are_used(
    need: Needs, change: dict[str, Any], complaint: str, pool: MakePool
) -> None:
    request = replace(pool(), **change)

    with pytest.raises(BadRequest, match=complaint):
        run(probe(need | Needs.EMBEDDINGS)[0], request)

    assert len(run(probe(Needs.EMBEDDINGS)[0], request)) == 10


def test_logits_are_not_taken_for_samples(pool: MakePool) -> None:
    request = pool()

    with pytest.raises(BadRequest, match="item-00000 do not sum to one"):
        run(probe(Needs.SAMPLES)[0], replace(request, samples=np.log(request.samples)))


def test_ties_go_to_the_lower_id_and_nan_comes_last(pool: MakePool) -> None:
    utilities = np.array([1.0, np.nan, 2.0, 1.0, 2.0, 1.0, -np.inf, np.nan])
    request = replace(pool(8, budget=6), ids=np.array(list("hgfedcba")))

    selection = request.take_highest(utilities, reason="{u}", u=utilities)

    assert selection.ids.tolist() == ["d", "f", "c", "e", "h", "a"]
    assert selection.reasons[:3] == ("2.0", "2.0", "1.0")

"""Every parameter and every declared input does something. A new one without a line here fails."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies import Needs, Request, Task, create, find, parameters, run
from strategies.registry import BUILT_IN
from strategies.values import Range
from tests.strategies.conftest import multi_label

MakePool = Callable[..., Request]

EFFECTS: dict[tuple[str, str], tuple[Any, Any, str]] = {
    ("auto", "labels_per_class"): (2, 3, "picks"),
    ("auto", "even"): (0.0, 1.0, "picks"),
    ("density", "targets"): (5, 300, "picks"),
    ("k_center_greedy", "shortlist"): (1, 8192, "nothing"),
    ("kl_divergence", "over"): ("mean", "max", "picks"),
    ("entropy", "over"): ("mean", "max", "picks"),
    ("least_confidence", "over"): ("mean", "max", "picks"),
    ("margin", "over"): ("mean", "max", "picks"),
    ("margin_clusters", "shortlist"): (1, 10, "picks"),
    ("margin_clusters", "duplicate"): (0.5, 1.01, "picks"),
    ("margin_clusters", "dimensions"): (2, 16, "picks"),
    ("margin_clusters", "clusters"): (1, 10, "picks"),
    ("max_herding", "width"): (0.1, 3.0, "picks"),
    ("max_herding", "dimensions"): (2, 16, "picks"),
    ("max_herding", "targets"): (20, 300, "picks"),
    ("max_herding", "candidates"): (30, 300, "picks"),
    ("typiclust", "neighbours"): (1, 20, "picks"),
    ("typiclust", "clusters"): (2, 22, "picks"),
    ("typiclust", "dimensions"): (2, 16, "picks"),
    ("typiclust", "candidates"): (30, 300, "picks"),
    ("k_means", "dimensions"): (2, 16, "picks"),
    ("k_means", "candidates"): (30, 300, "picks"),
    ("k_means", "clusters"): (3, 10, "picks"),
    ("lightweight_coreset", "share"): (0.0, 0.9, "picks"),
    ("dbal", "shortlist"): (1, 10, "picks"),
    ("dbal", "dimensions"): (2, 16, "picks"),
    ("dbal", "clusters"): (1, 10, "picks"),
    ("clue", "temperature"): (0.05, 50.0, "picks"),
    ("clue", "dimensions"): (2, 16, "picks"),
    ("clue", "candidates"): (30, 300, "picks"),
    ("clue", "clusters"): (1, 10, "picks"),
    ("tcm", "labels_per_class"): (2, 20, "picks"),
    ("information_density", "beta"): (0.0, 5.0, "picks"),
    ("information_density", "targets"): (1, 300, "picks"),
    ("facility_location", "dimensions"): (2, 16, "picks"),
    ("facility_location", "targets"): (20, 300, "picks"),
    ("facility_location", "candidates"): (30, 300, "picks"),
    ("uherding", "width"): (0.05, 3.0, "picks"),
    ("uherding", "temperature"): (0.05, 50.0, "picks"),
    ("uherding", "dimensions"): (2, 16, "picks"),
    ("uherding", "targets"): (20, 300, "picks"),
    ("uherding", "candidates"): (30, 300, "picks"),
    ("bait", "ridge"): (1e-3, 1e3, "picks"),
    ("bait", "forward"): (1.0, 4.0, "picks"),
    ("bait", "dimensions"): (2, 16, "picks"),
    ("bait", "candidates"): (30, 300, "picks"),
    ("batch_bald", "shortlist"): (10, 300, "picks"),
    ("batch_bald", "configurations"): (1, 5000, "picks"),
    ("epig", "targets"): (3, 300, "picks"),
    ("epig", "shortlist"): (10, 300, "picks"),
    ("class_quota", "of"): ("margin", "random", "picks"),
    ("class_quota", "share"): (0.2, 1.0, "picks"),
    ("class_quota", "depth"): (1, 20, "picks"),
    ("distinct", "of"): ("margin", {"name": "max_herding", "parameters": {"width": 0.5}}, "picks"),
    ("distinct", "cosine"): (0.2, 1.01, "picks"),
    ("distinct", "depth"): (1, 20, "picks"),
    ("distinct", "dimensions"): (2, 16, "picks"),
    ("metadata_balance", "of"): ("margin", "random", "picks"),
    ("per_cost", "of"): ("margin", "random", "picks"),
    ("per_cost", "power"): (0.0, 1.0, "picks"),
    ("product", "of"): ("margin", "random", "picks"),
    ("product", "by"): ("density", "egl", "picks"),
    ("product", "weight"): (0.0, 1.0, "picks"),
    ("random_share", "of"): ("margin", "random", "picks"),
    ("random_share", "share"): (0.0, 0.5, "picks"),
    ("stochastic", "of"): ("margin", "random", "picks"),
    ("stochastic", "noise"): ("power", "rank", "picks"),
    ("stochastic", "sharpness"): (0.0, 9.0, "picks"),
    ("sub_sample", "of"): ("margin", "random", "picks"),
    ("sub_sample", "size"): (40, 300, "picks"),
    ("prob_cover", "radius"): (0.3, 1.2, "picks"),
    ("prob_cover", "purity"): (0.5, 1.0, "picks"),
    ("prob_cover", "dimensions"): (2, 16, "picks"),
    ("prob_cover", "candidates"): (30, 300, "picks"),
    ("cluster_margin", "shortlist"): (1, 10, "picks"),
    ("cluster_margin", "cluster_size"): (2, 100, "picks"),
    ("cluster_margin", "dimensions"): (2, 16, "picks"),
    ("cluster_margin", "candidates"): (30, 300, "picks"),
    ("dal", "rounds"): (1, 10, "picks"),
    ("dal", "penalty"): (0.001, 1000.0, "picks"),
    ("dal", "dimensions"): (2, 16, "picks"),
    ("dal", "candidates"): (30, 300, "picks"),
    ("cal", "neighbours"): (1, 12, "picks"),
    ("drop_query", "passes"): (1, 9, "picks"),
    ("drop_query", "rate"): (0.2, 0.9, "picks"),
    ("drop_query", "dimensions"): (2, 16, "picks"),
    ("drop_query", "clusters"): (1, 10, "picks"),
    ("seals", "neighbours"): (1, 5, "picks"),
    ("seals", "dimensions"): (2, 16, "picks"),
    ("anchor_al", "anchors"): (1, 10, "picks"),
    ("anchor_al", "neighbours"): (1, 50, "picks"),
    ("anchor_al", "subpool"): (1, 200, "picks"),
    ("anchor_al", "dimensions"): (2, 16, "picks"),
    ("similar", "relevance"): (0.0, 1000.0, "picks"),
}
"""Two values of each parameter, and whether the picks have to differ or, where only the time may, must not."""

OF_SETS = {(name, "over") for name in ("entropy", "least_confidence", "margin")}
"""Parameters that matter where an item may have several labels."""

BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("auto", "even"): {"labels_per_class": 2},
    ("class_quota", "depth"): {"share": 0.2},
    ("distinct", "depth"): {"cosine": 0.2},
    ("distinct", "dimensions"): {"cosine": 0.5},
    ("seals", "dimensions"): {"neighbours": 4},
    ("anchor_al", "dimensions"): {"subpool": 20},
    ("anchor_al", "neighbours"): {"subpool": 20},
}
"""What else has to be set for the parameter to matter."""


def picks(request: Request, name: str, **values: Any) -> list[str]:
    return [str(i) for i in run(create(name, **values), request).ids.tolist()]


@pytest.fixture
def request_(pool: MakePool) -> Request:
    """12 labels of 5 classes, evenly spread."""
    return pool(labelled_classes=np.arange(12) % 5)


@pytest.mark.parametrize(("name", "parameter"), EFFECTS)
def test_a_parameter_does_what_it_says(name: str, parameter: str, request_: Request) -> None:
    one, other, changes = EFFECTS[name, parameter]
    if (name, parameter) in OF_SETS:
        request_ = multi_label(request_)

    before, after = (
        picks(request_, name, **{parameter: value}, **BESIDE.get((name, parameter), {})) for value in (one, other)
    )

    assert (before != after) == (changes == "picks")


def test_every_parameter_has_a_test() -> None:
    declared = {(name, parameter) for name in BUILT_IN for parameter in parameters(find(name))}

    assert declared == set(EFFECTS)


NUMBERS = [key for key in EFFECTS if isinstance(parameters(find(key[0]))[key[1]], Range)]


@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
def test_a_default_lies_in_its_range_and_both_ends_are_taken(name: str, parameter: str) -> None:
    default, low, high = parameters(find(name))[parameter]

    assert low <= default <= high
    assert create(name, **{parameter: low}) != create(name, **{parameter: high})


def shuffled(request: Request, need: Needs) -> Request:
    """The same request with other values in one of its inputs."""
    order = np.random.default_rng(1).permutation(len(request.ids))
    changes: dict[Needs, Callable[[], dict[str, Any]]] = {
        Needs.PROBABILITIES: lambda: {"probabilities": request.probabilities[order]},
        Needs.EMBEDDINGS: lambda: {"embeddings": request.embeddings[order]},
        Needs.LABELLED: lambda: {
            "labelled_embeddings": request.embeddings[:12],
            "labelled_classes": np.array([0] * 8 + [1] * 4),
        },
        Needs.SAMPLES: lambda: {"samples": request.samples[:, order]},
        Needs.LINEAR_HEAD: lambda: {"head_weights": request.head_weights[:, ::-1] ** 3},
        Needs.COSTS: lambda: {"costs": request.costs[order]},
        Needs.GROUPS: lambda: {"groups": request.groups[order]},
        Needs.TARGETS: lambda: {"targets": request.embeddings[:2]},
        Needs.VOTES: lambda: {"votes": request.votes[order]},
        Needs.DEVIATIONS: lambda: {"deviations": request.deviations[order]},
    }
    return replace(request, **changes[need]())


ALERT: dict[str, dict[str, Any]] = {
    "anchor_al": {"subpool": 20},
    "auto": {"labels_per_class": 2},
    "distinct": {"cosine": 0.3},
    "seals": {"neighbours": 4},
}
"""Parameters with which a strategy hears everything that it declares."""

DECLARED = [(name, need) for name in BUILT_IN for need in Needs if need and need in find(name).needs | find(name).uses]


@pytest.mark.parametrize(("name", "need"), DECLARED)
def test_an_input_that_is_declared_is_looked_at(name: str, need: Needs, request_: Request) -> None:
    if Task.CLASSIFICATION not in find(name).tasks:
        request_ = replace(request_, task=Task.REGRESSION)
    values = {"labels_per_class": 2} if (name, need) == ("tcm", Needs.PROBABILITIES) else ALERT.get(name, {})

    assert picks(shuffled(request_, need), name, **values) != picks(request_, name, **values)


def test_the_page_on_strategies_names_each_with_its_parameters() -> None:
    page = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()

    for name in BUILT_IN:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{parameter}`" in row for parameter in parameters(find(name))), row

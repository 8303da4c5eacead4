"""What the default strategy chooses, and that it says so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from strategies import Request, create, run

MakePool = Callable[..., Request]


def with_labels(request: Request, classes: Any) -> Request:
    classes = np.asarray(classes)
    rows = np.arange(len(classes)) % len(request.ids)
    return replace(request, labelled_embeddings=request.embeddings[rows], labelled_classes=classes)


def skewed(n: int, favourite: float) -> np.ndarray[Any, Any]:
    """Probabilities of 5 classes where the first is the best of a share of the rows."""
    rng = np.random.default_rng(0)
    best = np.where(rng.random(n) < favourite, 0, rng.integers(0, 5, n))
    return (rng.dirichlet(np.ones(5), n) * 0.4 + np.eye(5)[best] * 0.6).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "labels", "chosen", "because"),
    [
        ({"probabilities": None}, [], "typiclust", "no model yet, with 0 labels"),
        ({"probabilities": None}, [0, 1] * 90, "typiclust", "no model yet, with 180 labels"),
        ({"probabilities": np.full((300, 5), np.nan, np.float32)}, [0] * 90, "typiclust", "no model yet"),
        ({}, [0, 1, 2, 3, 4] * 9, "typiclust", "45 labels are fewer than 10 for each of 5 classes"),
        ({}, [0, 1, 2, 3, 4] * 10, "margin_clusters", "50 labels are enough"),
        ({}, [0] * 90 + [1, 2, 3, 4], "class_balanced_margin", "labelled classes are skewed"),
        ({}, [0] * 45 + [1, 2, 3, 4], "typiclust", "too few"),
        (
            {"probabilities": skewed(300, 0.8)},
            [0, 1, 2, 3, 4] * 10,
            "class_balanced_margin",
            "predicted classes are skewed",
        ),
        ({"probabilities": skewed(300, 0.8)}, [0, 1, 2, 3, 4] * 9, "typiclust", "too few"),
        ({"probabilities": skewed(300, 0.1)}, [0, 1, 2, 3, 4] * 20, "margin_clusters", "even"),
    ],
)
def test_it_chooses_by_what_is_known_and_says_why(
    pool: MakePool, change: dict[str, Any], labels: list[int], chosen: str, because: str
) -> None:
    request = with_labels(replace(pool(), **change), np.array(labels, dtype=np.int64))

    selection = run(create("auto"), request)

    assert selection.diagnostics["strategy"] == "auto"
    assert selection.diagnostics["chosen"] == chosen
    assert because in str(selection.diagnostics["policy"])
    assert chosen in str(selection.diagnostics["policy"])


@pytest.mark.parametrize("labels", [0, 40, 120])
def test_its_picks_are_those_of_the_strategy_it_chose(pool: MakePool, labels: int) -> None:
    request = with_labels(pool(), np.arange(labels) % 5)

    selection = run(create("auto"), request)

    chosen = run(create(str(selection.diagnostics["chosen"])), request)
    assert selection.ids.tolist() == chosen.ids.tolist()
    assert selection.reasons == chosen.reasons


def test_items_without_a_prediction_come_after_the_others(pool: MakePool) -> None:
    request = with_labels(pool(30, budget=30), np.arange(120) % 5)
    probabilities = request.probabilities.copy()
    probabilities[[2, 9]], probabilities[4] = np.nan, 0

    selection = run(create("auto"), replace(request, probabilities=probabilities))

    assert set(selection.ids[-3:].tolist()) == {"item-00002", "item-00004", "item-00009"}
    assert selection.diagnostics["without_prediction"] == 3
    assert selection.diagnostics["chosen"] == "margin_clusters"

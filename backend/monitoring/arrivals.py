"""Items that came since the last model, beside a sample of the pool that it knew: what a round suspects of them."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from scipy.stats import fisher_exact, ks_2samp
from sqlalchemy.orm import Session

from backend.database import Item
from backend.monitoring.drift import FEWEST, MOST, compare_embeddings, population_stability
from backend.monitoring.finding import Finding
from backend.monitoring.shares import EFFECT, compare_shares
from backend.monitoring.suspicion import Suspicion

MOST_KNOWN = 5_000
"""Known items whose predicted classes are counted; of their embeddings `compare_embeddings` draws 500."""


def samples(session: Session, project_id: int, since: dt.datetime) -> tuple[list[str], list[str]]:
    """At most 5,000 contents that were known at `since`, and 500 that came later: those of the smallest hashes.

    A hash is as good as a random number, so each is a uniform sample, and the first one stays from round to round.
    """
    known, new = (
        list(
            session.scalars(
                sa.select(Item.content_hash)
                .distinct()
                .where(Item.project_id == project_id, Item.state == "encoded", Item.content_hash.is_not(None), when)
                .order_by(Item.content_hash)
                .limit(most)
            )
        )
        for when, most in ((Item.created_at <= since, MOST_KNOWN), (Item.created_at > since, MOST))
    )
    return [hash_ or "" for hash_ in known], [hash_ or "" for hash_ in new]


def check_arrivals(
    known: Sequence[str],
    new: Sequence[str],
    gather: Callable[[Sequence[str]], NDArray[Any]],
    predict: Callable[[NDArray[Any]], NDArray[np.float32]] | None,
    classes: tuple[str, ...],
) -> list[Suspicion]:
    """Whether new contents differ from known ones, in their embeddings and in what the last model says of them.

    ``gather`` gives embeddings (n, d) of contents and ``predict`` their class probabilities (n, K), None where the
    model says no classes. A content that is on both sides counts as known. Says nothing below 20 on either side.
    """
    new = sorted(set(new) - set(known))
    if min(len(known), len(new)) < FEWEST:
        return []
    before, after = gather(known), gather(new)
    found = [_of_embeddings(before, after)]
    return found if predict is None else [*found, _of_shares(predict(before), predict(after), classes)]


def check_inputs(known: Sequence[Mapping[str, float]], new: Sequence[Mapping[str, float]]) -> list[Suspicion]:
    """Whether plain numbers of new items, by name, are distributed as those of known ones: a suspicion a number.

    By the two-sample Kolmogorov-Smirnov test. Says nothing of a number that fewer than 20 items of a side have.
    """
    found = []
    for name in sorted({name for one in known for name in one}):
        sides = [np.array([one[name] for one in side if name in one]) for side in (known, new)]
        if min(map(len, sides)) < FEWEST or (np.ptp(np.concatenate(sides)) == 0):
            continue
        medians = [float(np.median(side)) for side in sides]
        found.append(
            Suspicion(
                float(ks_2samp(*sides).pvalue),
                Finding(
                    "warn",
                    f"{name}_drifted",
                    f"The {name} of items that came since the last model is another than before",
                    f"median {medians[0]:.4g} of {len(sides[0])} known, {medians[1]:.4g} of {len(sides[1])} new ones",
                    "Look whether the pool's source changed: another camera, another export, another writer.",
                ),
            )
        )
    return found


def _of_embeddings(before: NDArray[Any], after: NDArray[Any]) -> Suspicion:
    test = compare_embeddings(before, after)
    return Suspicion(
        test.p,
        Finding(
            "warn",
            "embeddings_drifted",
            "Items that came since the last model look different from the pool before",
            f"{test.new} new against {test.reference} known ones; {test.share:.0%} of the new lie farther from the "
            "known than 99 % of those from each other",
            "Look at the newest items. If they belong to the project, let a random share of them be labelled.",
        ),
    )


def _of_shares(before: NDArray[Any], after: NDArray[Any], classes: tuple[str, ...]) -> Suspicion:
    """The PSI is told; what decides is a Monte Carlo chi-square test, whose p holds for rare classes as PSI's does not,
    and Fisher's test of each class, which finds one class that grew among many, with Bonferroni's correction."""
    named = [[classes[k] for k in side.argmax(axis=1)] for side in (before, after)]
    counts = [np.array([side.count(name) for name in classes], dtype=np.float64) for side in named]
    psi = population_stability(*(dict(zip(classes, count, strict=True)) for count in counts))
    test = compare_shares(named[0], named[1])
    gaps = counts[1] / len(after) - counts[0] / len(before)
    most = ", ".join(
        f"{classes[k]} {counts[0][k] / len(before):.0%} → {counts[1][k] / len(after):.0%}"
        for k in np.argsort(-np.abs(gaps), kind="stable")[:3]
    )
    tables = [[[int(b), len(after) - int(b)], [int(a), len(before) - int(a)]] for a, b in zip(*counts, strict=True)]
    of_one = min(float(fisher_exact(table).pvalue) for table in tables) * len(classes)
    return Suspicion(
        min(1.0, 2 * min(test.p, of_one)) if test.cramers_v >= EFFECT else 1.0,
        Finding(
            "warn",
            "predictions_drifted",
            f"The last model sees other class shares in the items that came since: {most}",
            f"PSI {psi:.2f}, {len(after)} new against {len(before)} known ones",
            "Look whether the pool's source changed; the shares are predictions, not labels.",
        ),
    )

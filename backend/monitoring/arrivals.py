"""Items that came since the last model, beside a sample of the pool that it knew: what drifted, as findings."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import Item
from backend.monitoring.drift import FEWEST, MOST, PSI_LARGE, compare_embeddings, population_stability
from backend.monitoring.drift import stability_threshold as threshold
from backend.monitoring.finding import Finding


def samples(session: Session, project_id: int, since: dt.datetime) -> tuple[list[str], list[str]]:
    """At most 500 contents that were known at `since`, and 500 that came later: those of the smallest hashes.

    A hash is as good as a random number, so each is a uniform sample, and the first one stays from round to round.
    """
    known, new = (
        list(
            session.scalars(
                sa.select(Item.content_hash)
                .distinct()
                .where(Item.project_id == project_id, Item.state == "encoded", Item.content_hash.is_not(None), when)
                .order_by(Item.content_hash)
                .limit(MOST)
            )
        )
        for when in (Item.created_at <= since, Item.created_at > since)
    )
    return [hash_ or "" for hash_ in known], [hash_ or "" for hash_ in new]


def check_arrivals(
    known: Sequence[str],
    new: Sequence[str],
    gather: Callable[[Sequence[str]], NDArray[Any]],
    predict: Callable[[NDArray[Any]], NDArray[np.float32]],
    classes: tuple[str, ...],
) -> Iterator[Finding]:
    """Whether new contents differ from known ones, in their embeddings and in what the last model says of them.

    ``gather`` gives embeddings (n, d) of contents and ``predict`` their class probabilities (n, K). A content that is
    on both sides counts as known. Says nothing below 20 on either side.
    """
    new = sorted(set(new) - set(known))
    if min(len(known), len(new)) < FEWEST:
        return
    before, after = gather(known), gather(new)
    test = compare_embeddings(before, after)
    if test.is_drifted:
        yield Finding(
            "warn",
            "embeddings_drifted",
            "Items that came since the last model look different from the pool before",
            f"{test.new} new against {test.reference} known ones, p = {test.p:.4f}; {test.share:.0%} of the new lie "
            "farther from the known than 99 % of those from each other",
            "Look at the newest items. If they belong to the project, let a random share of them be labelled.",
        )
    counts = [np.bincount(predict(rows).argmax(axis=1), minlength=len(classes)) for rows in (before, after)]
    old_shares, new_shares = (dict(zip(classes, map(float, count), strict=True)) for count in counts)
    psi = population_stability(old_shares, new_shares)
    if psi > (limit := threshold(len(classes), len(before), len(after))):
        gaps = counts[1] / len(after) - counts[0] / len(before)
        most = ", ".join(
            f"{classes[k]} {counts[0][k] / len(before):.0%} → {counts[1][k] / len(after):.0%}"
            for k in np.argsort(-np.abs(gaps), kind="stable")[:3]
        )
        yield Finding(
            "warn" if psi > PSI_LARGE else "note",
            "predictions_drifted",
            f"The last model sees other class shares in the items that came since: {most}",
            f"PSI {psi:.2f}, of which chance alone explains {limit:.2f} at most",
            "Look whether the pool's source changed; the shares are predictions, not labels.",
        )

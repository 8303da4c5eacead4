"""What people say over time, how far they agree, and how long it takes them."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Project
from backend.monitoring.agreement import cohen_kappa
from backend.web.views.costs import PersonView, costs

MOST_LABELS = 20_000  # the newest ones are looked at
PARTS, FEWEST = 8, 10  # as many parts in time, none of fewer labels
MOST_CLASSES = 6  # the commonest; the rest are others
FEWEST_SHARED, MOST_PAIRS = 5, 20


@dataclass(frozen=True)
class Period:
    """Some labels in a row: when, how many, the shares of the classes of `Labelling`, and that of all others."""

    begin: dt.datetime
    end: dt.datetime
    labels: int
    shares: list[float]


@dataclass(frozen=True)
class Pair:
    """Cohen's kappa of two people on the items that both labelled, with its 95 % interval."""

    one: str
    other: str
    items: int
    kappa: float
    low: float
    high: float


@dataclass(frozen=True)
class Labelling:
    """`periods` hold equally many labels each, the oldest first; `pairs` those who share most items first."""

    classes: list[str]
    periods: list[Period]
    people: list[PersonView]
    pairs: list[Pair]


def labelling(session: Session, project: Project) -> Labelling:
    """From the newest 20,000 labels that stand. Cost: one pass over them, and the pairs of people an item has."""
    mine = (Annotation.project_id == project.id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
    rows = session.execute(
        sa.select(Annotation.created_at, Annotation.label, Annotation.item_id, Annotation.annotator)
        .where(*mine)
        .order_by(Annotation.created_at.desc(), Annotation.id.desc())
        .limit(MOST_LABELS)
    ).all()[::-1]
    given = [(at, str(label)) for at, label, _, _ in rows]
    classes = [name for name, _ in Counter(label for _, label in given).most_common(MOST_CLASSES)]
    pairs = _pairs([(item_id, person, str(label)) for _, label, item_id, person in rows if person])
    return Labelling(classes, _periods(given, classes), costs(session, project).people, pairs)


def _periods(given: Sequence[tuple[dt.datetime, str]], classes: Sequence[str]) -> list[Period]:
    count = min(PARTS, len(given) // FEWEST)
    edges = [len(given) * part // count for part in range(count + 1)] if count else []
    periods = []
    for first, last in pairwise(edges):
        part = given[first:last]
        counted = Counter(label for _, label in part)
        shares = [counted[name] / len(part) for name in classes]
        periods.append(Period(part[0][0], part[-1][0], len(part), [*shares, max(0.0, 1 - sum(shares))]))
    return periods


def _pairs(given: Sequence[tuple[int, str, str]]) -> list[Pair]:
    """Of each person an item's last label counts."""
    said: dict[int, dict[str, str]] = defaultdict(dict)
    for item_id, person, label in given:
        said[item_id][person] = label
    shared: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for labels in said.values():
        for one, other in combinations(sorted(labels), 2):
            shared[one, other].append((labels[one], labels[other]))
    most = sorted((pair for pair in shared if len(shared[pair]) >= FEWEST_SHARED), key=lambda pair: -len(shared[pair]))
    found = []
    for pair in most[:MOST_PAIRS]:
        agreed = cohen_kappa(*zip(*shared[pair], strict=True))
        found.append(Pair(*pair, agreed.items, agreed.kappa, agreed.low, agreed.high))
    return found

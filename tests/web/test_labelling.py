"""What the health page says of labels: shares over time, agreement and speed, against plain counts."""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from backend.database import Annotation, Item, Project, now, reading, transaction
from backend.pool.catalog import item_key
from backend.rounds.queue import prepare_database
from backend.web.views.labelling import MOST_CLASSES, PARTS, Labelling, labelling
from tests.web.conftest import make_project


@pytest.fixture
def project(home: Path) -> Project:
    assert home
    prepare_database()
    return make_project()


def say(project: Project, given: list[tuple[int, str, str]]) -> Labelling:
    """Who says what of which item, a minute after the one before; what the page makes of it."""
    with transaction() as session:
        items = {n: Item(project_id=project.id, key=item_key(str(n)), uri=str(n)) for n, _, _ in given}
        session.add_all(items.values())
        session.flush()
        for place, (n, person, label) in enumerate(given):
            at = now() + dt.timedelta(minutes=place)
            known = {"external_id": place + 1, "created_at": at, "updated_at": at, "lead_time_s": 4.0}
            row = Annotation(project_id=project.id, item_id=items[n].id, annotator=person, label=label, **known)
            session.add(row)
    with reading() as session:
        return labelling(session, session.get_one(Project, project.id))


def test_class_shares_of_each_period_are_those_of_its_labels_and_rare_classes_are_others(project: Project) -> None:
    random = np.random.default_rng(1)
    labels = [f"class {int(n)}" for n in random.geometric(0.3, 203)]

    found = say(project, [(n, "ann", label) for n, label in enumerate(labels)])

    parts = np.array_split(np.array(labels), PARTS)
    assert len(found.classes) == MOST_CLASSES
    assert sum(one.labels for one in found.periods) == 203
    assert max(abs(one.labels - len(part)) for one, part in zip(found.periods, parts, strict=True)) <= 1
    start = 0
    for one in found.periods:
        part = labels[start : start + one.labels]
        assert one.shares[:-1] == pytest.approx([part.count(name) / len(part) for name in found.classes])
        assert sum(one.shares) == pytest.approx(1)
        start += one.labels
    assert [(one.name, one.labels, one.seconds_a_label) for one in found.people] == [("ann", 203, 4.0)]


def test_agreement_is_cohens_kappa_on_the_items_that_both_labelled_with_their_last_word(project: Project) -> None:
    random = np.random.default_rng(2)
    one = random.choice(["cat", "dog", "owl"], 60).tolist()
    other = [label if random.random() < 0.8 else "owl" for label in one]
    given = [(n, "ann", "changed later") for n in range(5)]
    given += [(n, "ann", label) for n, label in enumerate(one)] + [(n, "bob", label) for n, label in enumerate(other)]
    given += [(n, "eve", "cat") for n in range(3)]

    found = say(project, given)

    (pair,) = found.pairs  # with eve nobody shares enough
    assert (pair.one, pair.other, pair.items) == ("ann", "bob", 60)
    assert pair.kappa == pytest.approx(cohen_kappa_score(one, other))
    assert pair.low < pair.kappa < pair.high


def test_without_labels_nothing_is_said(project: Project) -> None:
    assert say(project, []) == Labelling([], [], [], [])

"""Versions that say numbers, or sets, live as others do: compared, challenged, looked at, their labels checked."""

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from backend.database import ModelChange, Project, reading, transaction
from backend.learning import registry
from backend.rounds import analyse, challenge, choose, learn
from tests.monitoring.conftest import Played, clusters
from tests.monitoring.test_challenge import add_version
from tests.monitoring.test_commands import run

NUMBERS = '<View><Image name="image" value="$image"/><Number name="n" toName="image"/></View>'
HELD = range(100, 180)


def configure(played: Played, label_config: str | None = None, **config: object) -> None:
    with transaction() as session:
        project = session.get_one(Project, played.project_id)
        project.label_config = label_config or project.label_config
        project.config = {**project.config, **config}


@pytest.fixture
def seen(played: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    for module in (analyse, choose):
        monkeypatch.setattr(module, "open_embeddings", learn.open_embeddings)
    played.hold_out(HELD)
    return played


@pytest.fixture
def numbered(seen: Played) -> Played:
    """People gave numbers that follow an embedding: 100 to learn from, 80 of the holdout. Two are far off."""
    configure(seen, NUMBERS)
    vectors, noise = clusters(200)[0], np.random.default_rng(3).normal(size=200)
    numbers = 10 + vectors[:, 0] + vectors[:, 1] + 0.5 * noise
    numbers[[3, 104]] += (9, -9)
    seen.label(range(180), names=[f"{number:.2f}" for number in numbers[:180]])
    return seen


def test_a_challenger_that_says_numbers_wins_and_loses_by_its_errors(numbered: Played) -> None:
    configure(numbered, challenger={"decide": "rule", "labels": 50})
    numbered.learn()
    good = registry.load_head(numbered.version("v1"))
    add_version(numbered, replace(good, bias=good.bias + 2))
    run("models", "challenge", "p", "v2")

    lost = challenge.decide(numbered.project_id, numbered.rounds)
    run("models", "promote", "p", "v2")
    run("models", "challenge", "p", "v1")
    won = challenge.decide(numbered.project_id, numbered.rounds)

    compared = run("models", "compare", "p", "v2", "v1")
    with reading() as session:
        looks = session.scalars(sa.select(ModelChange.detail).where(ModelChange.action == "look")).all()
    assert (lost["challenger_is"], won["challenger_is"]) == ("worse", "better")
    assert numbered.version("v1").state == "champion"
    assert all(look.startswith("mean absolute error") for look in looks)
    assert "v2 against v1 on 80 labels of the holdout: mean absolute error +1." in compared
    assert "v2 is worse" in compared
    assert "root mean square" in compared

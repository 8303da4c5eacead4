"""Every strategy can choose a round's batch: it gets what it asks for, or coverage stands in for it."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import strategies
from backend.database import Annotation, Batch, Item, Pick, Project, Round, now, reading, transaction
from backend.errors import StrategyFieldMissing
from backend.learning.encoders import EncoderSpec
from backend.rounds import choose
from backend.rounds.encoding import Embeddings
from backend.rounds.inputs import folded
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from tests.web.champion import DIMS, Champion, crown
from tests.web.conftest import IMAGE_CONFIG

ITEMS, LABELS = 60, 12
NOT_IN_A_ROUND = {"similar", "active_lab"}  # they need targets or votes, which a round does not give yet
_numbers = itertools.count(1)


@pytest.fixture
def champion(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Project, Champion]:
    """A project with a champion, 60 encoded items and 12 labels."""
    prepare_database()
    with transaction() as session:
        project = Project(name="p", config={"name": "p"}, studio_project_id=1, label_config=IMAGE_CONFIG)
        session.add(project)
    made = crown(project, ITEMS)
    spec = EncoderSpec("efficientnet-lite0", made.encoder_digest, DIMS, 32, "fp32", "", home / "none")
    store = VectorStore(settings().home / "vectors", made.encoder_digest, DIMS)
    monkeypatch.setattr(choose, "open_embeddings", lambda _config: Embeddings(spec, store))
    day = now() - dt.timedelta(days=1)
    with transaction() as session:
        for at, item in enumerate(session.scalars(sa.select(Item).order_by(Item.id))):
            item.data = {"minutes": at + 1, "camera": f"camera {at % 3}"}
            if at < LABELS:
                label = made.head.classes[at % 2]
                known = {"external_id": at, "label": label, "created_at": day, "updated_at": day}
                session.add(Annotation(project_id=project.id, item_id=item.id, **known))
    return project, made


def chosen(project: Project, **strategy: Any) -> tuple[dict[str, Any], list[tuple[Item, Pick]]]:
    """A round's batch with this strategy."""
    number = 10 + next(_numbers)
    with transaction() as session:
        config = {"name": "p", "batch": {"size": 8, "holdout_share": 0}, "strategy": strategy}
        session.get_one(Project, project.id).config = config
        session.add(Round(project_id=project.id, number=number, workflow_id=f"round:{number}"))
    report = choose.choose(project.id, number)
    with reading() as session:
        query = sa.select(Item, Pick).join(Pick, Pick.item_id == Item.id).join(Batch, Batch.id == Pick.batch_id)
        rows = session.execute(query.where(Batch.version == report["batch"]).order_by(Pick.rank)).all()
    return report, [(item, pick) for item, pick in rows]


@pytest.mark.parametrize("name", sorted(set(strategies.names()) - NOT_IN_A_ROUND))
def test_it_chooses_a_batch(champion: tuple[Project, Champion], name: str) -> None:
    project, _ = champion

    report, picks = chosen(project, name=name, cost_field="minutes", group_field="camera")

    assert report["size"] == 8
    assert len({item.id for item, _ in picks}) == 8
    assert all(pick.reason for _, pick in picks)
    assert report["strategy"] == name or name in ("auto", "tcm")  # these two say what they chose


def test_the_price_and_the_groups_are_fields_of_the_data(champion: tuple[Project, Champion]) -> None:
    project, _ = champion

    cheap = [item.data["minutes"] for item, _ in chosen(project, name="per_cost", cost_field="minutes")[1]]
    even = [item.data["camera"] for item, _ in chosen(project, name="metadata_balance", group_field="camera")[1]]

    assert np.mean(cheap) < np.mean(range(LABELS + 1, ITEMS + 1))
    assert max(even.count(camera) for camera in set(even)) == 3  # eight picks of three cameras: 3, 3 and 2
    with pytest.raises(StrategyFieldMissing, match="no_such_field"):
        chosen(project, name="per_cost", cost_field="no_such_field")


def test_without_a_model_coverage_stands_in_and_says_so(champion: tuple[Project, Champion]) -> None:
    project, _ = champion
    with transaction() as session:
        session.execute(sa.text("UPDATE model_versions SET state = 'retired'"))

    report, picks = chosen(project, name="margin")

    assert len(picks) == 8
    assert report["policy"] == "Coverage (max_herding): margin needs a model, and there is none yet."


def test_the_folded_head_gives_the_heads_logits(champion: tuple[Project, Champion]) -> None:
    _, made = champion

    weights, bias = folded(made.head)

    np.testing.assert_allclose(made.vectors @ weights + bias, made.head.logits(made.vectors), atol=1e-4)

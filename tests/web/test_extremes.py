"""Pages of projects at both ends: two labels and nothing learned yet, and a thousand classes."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from backend.database import Annotation, Batch, Item, Pick, Project, Round, now, transaction
from backend.pool.catalog import item_key
from backend.rounds.queue import prepare_database
from backend.studio.labels import image_config
from backend.web.app import create_app
from tests.web.conftest import make_project
from tests.web.played import play, with_answers, with_map

PAGES = ("", "/batch", "/map", "/models", "/models/compare?one=v6&other=v5", "/health", "/settings")
MOST_BYTES = 300_000 - 25_000  # less what style and scripts weigh
CLASSES = tuple(f"class {number:04} of a taxonomy with long names" for number in range(1_000))


@pytest.fixture
def client(home: Path) -> FlaskClient:
    assert home
    prepare_database()
    return create_app().test_client()


def test_a_thousand_classes_fit_on_every_page(client: FlaskClient, home: Path) -> None:
    played = play(home / "data", hostile=False)
    with transaction() as session:
        session.get_one(Project, played.project_id).label_config = image_config(CLASSES)
        for one in session.scalars(sa.select(Annotation).where(Annotation.project_id == played.project_id)):
            one.label = CLASSES[one.item_id % len(CLASSES)]
    with_answers(played, CLASSES)
    with_map(played, CLASSES)

    answers = {page: client.get(f"/projects/{played.name}{page}") for page in PAGES}

    assert {page: answer.status_code for page, answer in answers.items()} == dict.fromkeys(PAGES, 200)
    assert {page: len(answer.data) for page, answer in answers.items() if len(answer.data) > MOST_BYTES} == {}
    assert client.get(f"/api/v1/projects/{played.name}").json["classes"] == 1_000


def test_two_labels_say_what_is_missing_and_no_figures(client: FlaskClient) -> None:
    project = make_project()
    with transaction() as session:
        items = [Item(project_id=project.id, key=item_key(str(n)), uri=f"https://a.example/{n}.jpg") for n in range(5)]
        session.add_all(items)
        round_ = Round(project_id=project.id, number=1, workflow_id="first", state="done")
        session.add(round_)
        session.flush()
        batch = Batch(project_id=project.id, round_id=round_.id, number=1, version="v0+b1", strategy="max_herding")
        batch.state = "published"
        session.add(batch)
        session.flush()
        for place, item in enumerate(items):
            item.state, item.content_hash = "encoded", f"{place:064x}"
            session.add(Pick(batch_id=batch.id, rank=place, item_id=item.id, reason="far", nearest_id=None))
        for item in items[:2]:
            known = {"external_id": item.id, "label": "cat", "created_at": now(), "updated_at": now()}
            session.add(Annotation(project_id=project.id, item_id=item.id, **known))

    answers = {page: client.get(f"/projects/{project.name}{page}") for page in PAGES if "compare" not in page}
    curve = client.get(f"/api/v1/projects/{project.name}/curve").json

    assert {answer.status_code for answer in answers.values()} == {200}
    assert "a head needs labels of two classes" in answers["/models"].text
    assert answers["/batch"].text.count("labelled cat") == 2
    assert "Most like" not in answers["/batch"].text
    assert (curve["points"], [one["says_stop"] for one in curve["advice"]]) == ([], [None])
    assert not any("nan" in answer.text.casefold().split() for answer in answers.values())

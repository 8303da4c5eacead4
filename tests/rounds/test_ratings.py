"""A project whose items get a rating goes round with a real Label Studio."""

import pytest
import sqlalchemy as sa

from backend.database import Annotation, Batch, Item, ModelVersion, Pick, Project, reading, transaction
from backend.hooks import Hooks
from backend.learning.card import card, render
from backend.learning.data import differ, open_snapshot
from backend.rounds.rebuild import verify
from backend.studio.client import Studio
from backend.web.app import create_app
from strategies import Task
from tests.rounds.conftest import Asked, Loop
from tests.rounds.test_several_labels import PAGES

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

CONFIG = """<View><Image name="image" value="$image"/><Rating name="r" toName="image" maxRating="10"/></View>"""
RATINGS = [str(digit + 1) for digit in range(10)]


@pytest.fixture
def asked() -> Asked:
    return Asked(CONFIG, RATINGS, 44)


def test_ratings_go_round(loop: Loop, studio: Studio) -> None:
    with transaction() as session:
        project = session.get_one(Project, loop.project_id)
        project.config = {**project.config, "strategy": {"name": "predictive_deviation"}}
    loop.work()
    loop.wait_done(loop.ask())

    with reading() as session:
        (first,) = session.scalars(sa.select(ModelVersion))
        (batch,) = session.scalars(sa.select(Batch))
        picks = list(session.execute(sa.select(Pick, Item.task_id).join(Item).order_by(Pick.rank)))
    assert (first.lineage["task"], first.lineage["method"]) == (Task.REGRESSION, "ridge")
    assert first.metrics["mae"] < 3
    assert batch.strategy == "predictive_deviation"
    deviations = [(pick.prediction or {})["deviation"] for pick, _ in picks]
    assert deviations == sorted(deviations, reverse=True)
    for pick, task_id in picks:
        (prediction,) = studio.get(f"/api/tasks/{task_id}/")["predictions"]
        (result,) = prediction["result"]
        assert result["type"] == "rating"
        assert str(result["value"]["rating"]) == (pick.prediction or {})["label"]
        assert 1 <= result["value"]["rating"] <= 10
    tasks = [{"id": task_id, "data": studio.get(f"/api/tasks/{task_id}/")["data"]} for _, task_id in picks]
    entries = Hooks(str(loop.studio_project_id), "").predict(tasks)
    assert [loop.task.label_of(entry) for entry in entries] == [(pick.prediction or {})["label"] for pick, _ in picks]
    assert all(0 <= entry["score"] <= 1 for entry in entries)

    for _, task_id in picks:
        result = loop.task.to_result(RATINGS[loop.digits[task_id or 0]])
        studio.post(f"/api/tasks/{task_id}/annotations/", {"result": result, "lead_time": 1.0})
    loop.wait_done(loop.ask())

    with reading() as session:
        project = session.get_one(Project, loop.project_id)
        second = session.scalars(sa.select(ModelVersion).where(ModelVersion.number == 2)).one()
        given = session.execute(sa.select(Item.task_id, Annotation.label).join(Annotation)).all()
        change = differ(*(open_snapshot(session, loop.project_id, name) for name in ("v1", "v2")))
        described = render(card(session, second))
    assert len(given) == 44 + 8
    assert all(label == RATINGS[loop.digits[task_id or 0]] for task_id, label in given)
    assert (len(change.added), change.classes) == (8, ())
    assert verify(second).answer == "equal"
    assert "mean abs. error" in described
    browser = create_app().test_client()
    for page in PAGES:
        assert browser.get(f"/projects/{project.name}{page}").status_code == 200, page
    assert "mean error" in browser.get(f"/projects/{project.name}/models").text
    beside = browser.get(f"/projects/{project.name}/models/compare?one=v2&other=v1").text
    assert "on average than v1" in beside
    assert "Root mean square error" in beside

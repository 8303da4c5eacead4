"""A project whose items may have several labels goes round with a real Label Studio."""

import pytest
import sqlalchemy as sa

from backend.database import Annotation, Item, ModelVersion, Pick, Project, Round, reading, transaction
from backend.errors import NothingToLookFor
from backend.hooks import Hooks
from backend.learning import registry
from backend.learning.card import card, render
from backend.learning.data import differ, open_snapshot
from backend.processes import wait_until
from backend.questions import names_in, set_label
from backend.rounds import configured
from backend.rounds.checks import find_suspects
from backend.rounds.encoding import open_embeddings
from backend.rounds.rebuild import verify
from backend.settings import StrategySection
from backend.studio.client import Studio
from backend.studio.labels import image_config
from backend.web.app import create_app
from strategies import Task, WrongTask
from tests.rounds.conftest import Asked, Loop

pytestmark = [pytest.mark.parametrize("store", ["sqlite"], indirect=True), pytest.mark.usefixtures("fp32")]

LABELS = ("even", "large", "round")
SETS = ("even round", "", "even", "", "even", "large", "even large round", "large", "even large round", "large round")
ANSWERS = [set_label(names.split()) for names in SETS]
PAGES = ("", "/batch", "/map", "/models", "/models/compare?one=v2&other=v1", "/health")


@pytest.fixture
def asked() -> Asked:
    config = image_config(LABELS).replace('choice="single"', 'choice="multiple"', 1)
    return Asked(config, ANSWERS, 48)


def test_sets_of_labels_go_round(loop: Loop, studio: Studio) -> None:
    loop.work()
    loop.wait_done(loop.ask())

    with reading() as session:
        (first,) = session.scalars(sa.select(ModelVersion))
        picks = list(session.execute(sa.select(Pick, Item.task_id).join(Item).order_by(Pick.rank)).tuples())
    assert first.lineage["task"] == Task.MULTI_LABEL
    assert first.lineage["class_counts"].keys() == set(LABELS)
    assert first.metrics["micro_f1"] > 0.6
    head = registry.load_head(first)
    right = 0
    for pick, task_id in picks:
        (prediction,) = studio.get(f"/api/tasks/{task_id}/")["predictions"]
        told = [one for result in prediction["result"] for one in result["value"]["choices"]]
        assert pick.prediction is not None
        assert set_label(told) == pick.prediction["label"]
        right += set(told) == set(names_in(ANSWERS[loop.digits[task_id or 0]]))
    assert right >= 2  # of 8, where eight different sets could be told
    tasks = [{"id": task_id, "data": studio.get(f"/api/tasks/{task_id}/")["data"]} for _, task_id in picks]
    entries = Hooks(str(loop.studio_project_id), "").predict(tasks)
    assert all(0 <= entry["score"] <= 1 and entry["model_version"] == "v1" for entry in entries)
    assert [loop.task.label_of(entry) for entry in entries] == [(pick.prediction or {})["label"] for pick, _ in picks]

    for _, task_id in picks:
        result = loop.task.to_result(ANSWERS[loop.digits[task_id or 0]])
        studio.post(f"/api/tasks/{task_id}/annotations/", {"result": result, "lead_time": 1.0})
    loop.wait_done(loop.ask())

    with reading() as session:
        project = session.get_one(Project, loop.project_id)
        second = session.scalars(sa.select(ModelVersion).where(ModelVersion.number == 2)).one()
        given = session.execute(sa.select(Item.task_id, Annotation.label).join(Annotation)).all()
        snapshots = [open_snapshot(session, loop.project_id, name) for name in ("v1", "v2")]
        described = render(card(session, second))
    assert all(label == ANSWERS[loop.digits[task_id or 0]] for task_id, label in given)
    assert len(given) == 48 + 8
    assert "[]" in {label for _, label in given}
    change = differ(*snapshots)
    assert len(change.added) == 8
    assert {one.label for one in change.classes} == set(LABELS)
    assert verify(second).answer == "equal"
    assert "micro F1" in described
    with pytest.raises(NothingToLookFor, match="0 labels to judge"):
        find_suspects([], head, open_embeddings(project), 1.0, 0)
    browser = create_app().test_client()
    for page in PAGES:
        assert browser.get(f"/projects/{project.name}{page}").status_code == 200, page
    beside = browser.get(f"/projects/{project.name}/models/compare?one=v2&other=v1").text
    assert "On 12 labels of the holdout" in beside

    wrong = {"strategy": StrategySection(name="badge")}
    with transaction() as session:
        project = session.get_one(Project, loop.project_id)
        with pytest.raises(WrongTask, match="not made for multi-label"):
            configured.replace(session, project, project.settings.model_copy(update=wrong))
        project.config = {**project.config, "strategy": {"name": "badge"}}
    number = loop.ask()
    assert wait_until(lambda: loop.state(number) == "failed", 200)
    with reading() as session:
        failure = session.scalars(sa.select(Round.failure).where(Round.number == number)).one()
    assert "not made for multi-label labels" in (failure or "")
    assert "margin_clusters" in (failure or "")

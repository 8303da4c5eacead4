"""Label Studio's own page in a real chromium: our order, our prediction, and the answers back in the next round."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from backend.database import Annotation, Batch, Item, ModelVersion, Pick, reading
from backend.learning import registry
from backend.learning.snapshots import Snapshot
from backend.pool.folders import digits
from backend.processes import free_port, wait_until
from backend.seed import seed, wait_for_round
from backend.settings import ProjectConfig
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, image_config
from backend.studio.server import LabelStudioServer
from tests.conftest import forget_process_state
from tests.services import nextbatch
from tests.services.images import CACHE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LABELS = ("0", "1")
KNOWN, BATCH, ANSWERS = 6, 5, 3
PATIENCE_S = 200


@dataclass(frozen=True)
class Offered:
    """A pick of the published batch, in rank order: its task, and what the model says of it."""

    item_id: int
    task_id: int
    prediction: str


@dataclass(frozen=True)
class Opened:
    """A project whose first batch is out, with a model's predictions; web and a worker run."""

    project_id: int
    page: str
    batch: list[Offered]


@pytest.fixture
def project(
    home: Path, encoders: Path, server: LabelStudioServer, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    """24 digits, seeded as a user does; six of them are labelled when the first round begins."""
    name, port = f"page-{uuid.uuid4().hex[:8]}", free_port()
    assert server.local_files is not None
    folder = server.local_files / name
    folder.mkdir()
    for label in LABELS:
        for path in sorted((digits(CACHE).root / "train" / label).iterdir())[:12]:
            shutil.copy(path, folder / f"{label}-{path.name}")
    (home / "encoders").symlink_to(encoders)
    process = {"URL": f"http://127.0.0.1:{port}", "DATA_ROOT": str(server.local_files), "WORKER_THREADS": "1"}
    for key, value in process.items():
        monkeypatch.setenv(f"NEXTBATCH_{key}", value)
    monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.account.token)
    forget_process_state()
    config = {
        "label_studio": {"title": name, "labels": LABELS},
        "pool": {"source": "folder", "path": str(folder)},
        "encoder": {"precision": "fp32"},
        "batch": {"size": BATCH, "holdout_share": 0, "first_holdout": 0},
        "trigger": {"new_labels": ANSWERS, "quiet_s": 0, "rest_share": 0},
    }
    with nextbatch.web(port):
        seeded = seed(ProjectConfig.model_validate({"name": name, **config}))
        label_some(studio, seeded.studio_project_id)
        with nextbatch.working():
            wait_for_round(seeded.project_id, 1, timeout_s=PATIENCE_S)
            page = f"{server.url}/projects/{seeded.studio_project_id}/data"
            yield Opened(seeded.project_id, page, batch_of(seeded.project_id))


def label_some(studio: Studio, studio_project_id: int) -> None:
    """Three of each digit, rightly."""
    task = LabelTask.parse(image_config(LABELS))
    for label in LABELS:
        found = studio.get("/api/tasks", {"project": str(studio_project_id), "fields": "all", "resolve_uri": "false"})
        rows = [row for row in found["tasks"] if f"/{label}-" in row["data"]["image"].replace("%2F", "/")]
        for row in rows[: KNOWN // len(LABELS)]:
            studio.post(f"/api/tasks/{row['id']}/annotations/", {"result": task.to_result(label), "lead_time": 1.0})


def batch_of(project_id: int) -> list[Offered]:
    with reading() as session:
        rows = session.execute(
            sa.select(Pick, Item)
            .join(Item, Item.id == Pick.item_id)
            .join(Batch, Batch.id == Pick.batch_id)
            .where(Batch.project_id == project_id, Batch.state == "published")
            .order_by(Pick.rank)
        ).all()
    return [Offered(item.id, item.task_id or 0, (pick.prediction or {})["label"]) for pick, item in rows]


@pytest.fixture
def page(browser: "Browser", server: LabelStudioServer) -> "Iterator[Page]":
    """A person's browser, logged in."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_S * 1000)
    context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())  # it counts its users
    opened = context.new_page()
    opened.goto("/user/login/", wait_until="commit")
    opened.locator("#email").fill(server.account.username)
    opened.locator("#password").fill(server.account.password)
    opened.get_by_role("button", name="Log in").click()
    opened.wait_for_url(lambda url: "/login" not in url, wait_until="commit")
    yield opened
    context.close()


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_person_labels_down_our_order_and_the_next_round_has_learned_it(project: Opened, page: "Page") -> None:
    said: list[str] = []

    page.goto(project.page, wait_until="commit")
    page.get_by_role("button", name="Label All Tasks").click()
    for at, offered in enumerate(project.batch[:ANSWERS]):
        shown = f"document.querySelector('.lsf-current-task__task-id')?.firstChild?.data === '{offered.task_id}'"
        seen = "document.querySelector('img[alt=image]')?.naturalWidth === 8"
        page.wait_for_function(f"{shown} && {seen} && !Htx.isSubmitting")  # while it is, the page ignores a click
        page.locator(f".lsf-choice input[name='{offered.prediction}']:checked").wait_for(state="attached")
        said.append(offered.prediction if at else next(label for label in LABELS if label != offered.prediction))
        page.locator(f".lsf-choice input[name='{said[-1]}']").check()
        with page.expect_response(
            lambda answer: answer.request.method == "POST" and "/annotations" in answer.url
        ) as saved:
            page.get_by_test_id("bottombar-submit-button").click()
        assert saved.value.status == 201
    assert wait_until(lambda: len(answers(project)) == ANSWERS, PATIENCE_S)
    wait_for_round(project.project_id, 2, timeout_s=PATIENCE_S)

    answered = [offered.item_id for offered in project.batch[:ANSWERS]]
    assert answers(project) == dict(zip(answered, said, strict=True))
    with reading() as session:
        version = session.scalars(sa.select(ModelVersion).where(ModelVersion.number == 2)).one()
    learned = Snapshot.read(registry.snapshot_path(version.snapshot)).rows
    assert {row.item_id: row.label for row in learned}.items() >= dict(
        zip(map(str, answered), said, strict=True)
    ).items()
    assert len(learned) == version.lineage["labels"] == KNOWN + ANSWERS
    assert not {offered.item_id for offered in batch_of(project.project_id)} & set(answered)


def answers(project: Opened) -> dict[int, str | None]:
    """What our database knows of the batch's items."""
    items = [offered.item_id for offered in project.batch]
    with reading() as session:
        rows = sa.select(Annotation.item_id, Annotation.label).where(Annotation.item_id.in_(items))
        return dict(session.execute(rows).all())

"""A text project from its tasks to the page of its batch, with a real Label Studio and the text encoder in Triton."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from backend.connections import certificates
from backend.database import Annotation, Item, ModelVersion, Pick, Project, Round, reading, transaction
from backend.learning.encoders import EncoderSpec
from backend.processes import wait_until
from backend.rounds.queue import prepare_database, request_round
from backend.scoring.serving import EmbeddedTriton
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, text_config
from backend.studio.server import LabelStudioServer
from tests.conftest import forget_process_state
from tests.services import nextbatch
from tests.services.texts import TOPICS, written
from tests.services.triton import put

TASK = LabelTask.parse(text_config(list(TOPICS)))
MARKUP = "<script>alert('comet')</script> & the telescope, observed at night\x00 for a year"
EMPTY = " \n\t"
UNKNOWN = {
    "Knead the dough, bake the bread and butter it.": "cooking",
    "The orbit of the moon around Saturn": "astronomy",
}


@dataclass(frozen=True)
class TextLoop:
    """36 texts, of which 12 are labelled and one twice; markup, a NUL and an empty text among the tasks."""

    project_id: int
    studio_id: int
    tasks: dict[int, str]

    def run_round(self) -> dict[str, Any]:
        """A round by a worker; its report."""
        with transaction() as session:
            number = request_round(session, self.project_id, "hand").number
        with nextbatch.working():
            assert wait_until(lambda: self._state(number) in ("done", "failed"), 200)
        assert self._state(number) == "done"
        with reading() as session:
            report = session.scalars(sa.select(Round.report).where(Round.number == number)).one()
        assert report is not None
        return report

    def _state(self, number: int) -> str | None:
        with reading() as session:
            return session.scalar(sa.select(Round.state).where(Round.number == number))


@pytest.fixture
def loop(
    home: Path, encoders: Path, server: LabelStudioServer, studio: Studio, triton: EmbeddedTriton,
    minilm: EncoderSpec, monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TextLoop]:  # fmt: skip
    put(triton, minilm)
    (home / "encoders").symlink_to(encoders)
    for name, value in (
        ("LABEL_STUDIO_URL", server.url),
        ("LABEL_STUDIO_API_KEY", server.account.token),
        ("TRITON_URL", triton.url),
    ):
        monkeypatch.setenv(name, value)
    forget_process_state()
    prepare_database()
    name = f"texts-{uuid.uuid4().hex[:8]}"
    config = text_config(list(TOPICS))
    studio_id = int(studio.post("/api/projects/", {"title": name, "label_config": config})["id"])
    texts = [text for text, _ in written()]
    texts += [texts[0], MARKUP, EMPTY]  # the first one once more
    body = [{"data": {"text": text}} for text in texts]
    ids = studio.post(f"/api/projects/{studio_id}/import", body, {"return_task_ids": "true"})["task_ids"]
    for task_id, (_, topic) in zip(ids[:12], written(), strict=False):
        studio.post(f"/api/tasks/{task_id}/annotations/", {"result": TASK.to_result(topic), "lead_time": 1.0})
    studio.post(f"/api/tasks/{ids[36]}/annotations/", {"result": TASK.to_result("cooking"), "lead_time": 1.0})
    settings = {"name": name, "encoder": {"precision": "fp32"}, "batch": {"size": 30, "holdout_share": 0}}
    with transaction() as session:
        project = Project(name=name, config=settings, studio_project_id=studio_id, label_config=config)
        session.add(project)
        session.flush()
        project_id = project.id
    yield TextLoop(project_id, studio_id, dict(zip(ids, texts, strict=True)))
    forget_process_state()


def test_a_text_project_goes_round(loop: TextLoop, studio: Studio, minilm: EncoderSpec) -> None:
    report = loop.run_round()

    assert (report["encoded"], report["failed"], report["size"]) == (38, 1, 25)
    with reading() as session:
        items = {item.task_id: item for item in session.scalars(sa.select(Item))}
        labelled = set(session.scalars(sa.select(Annotation.item_id)))
        (version,) = session.scalars(sa.select(ModelVersion))
        picked = [item.task_id for item in session.scalars(sa.select(Item).join(Pick).order_by(Pick.rank))]
    first, _, *_, twice, markup, empty = loop.tasks
    assert items.keys() == loop.tasks.keys()
    assert items[first].content_hash == items[twice].content_hash
    assert {items[first].id, items[twice].id} <= labelled
    assert len(labelled) == 13
    assert items[markup].uri == MARKUP.replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert (items[empty].state, items[empty].failure) == ("failed", "This is no readable text: it is empty.")
    assert version.encoder_digest == minilm.digest

    topics = dict(written()) | {MARKUP: "astronomy"}
    right = 0
    for task_id in picked:
        assert task_id is not None
        (prediction,) = studio.get(f"/api/tasks/{task_id}/")["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("label", "text", "choices")
        right += result["value"]["choices"] == [topics[loop.tasks[task_id]]]
    assert right >= 0.9 * len(picked)

    body = {"project": str(loop.studio_id), "label_config": text_config(list(TOPICS))}
    tasks = [{"id": 10**9 + at, "data": {"text": text}} for at, text in enumerate([*UNKNOWN, EMPTY])]
    with nextbatch.web() as url, httpx.Client(base_url=url, timeout=20, verify=certificates()) as web:
        answers: list[dict[str, Any]] = []

        def is_answered() -> bool:
            """A busy machine may take longer than a person is made to wait; then they are still unknown."""
            answers[:] = web.post("/predict", json=body | {"tasks": tasks}).raise_for_status().json()["results"]
            return all(entry["result"] for entry in answers[:-1])

        assert wait_until(is_answered, 120)
        page = web.get(f"/projects/{_name(loop)}/batch").raise_for_status().text
        health = web.get(f"/projects/{_name(loop)}/health").raise_for_status().text

    *known, nothing = answers
    assert [entry["result"][0]["value"]["choices"] for entry in known] == [[topic] for topic in UNKNOWN.values()]
    assert nothing["result"] == []
    assert "<img" not in page
    assert "&lt;script&gt;alert(" in page
    assert "<script>alert(" not in page
    assert "it is empty" in health


def _name(loop: TextLoop) -> str:
    with reading() as session:
        return session.get_one(Project, loop.project_id).name

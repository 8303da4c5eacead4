"""A small project on a real Label Studio, and workers for it."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import Project, Round, reading, transaction
from backend.pool.folders import digits
from backend.processes import wait_until
from backend.rounds.queue import request_round
from backend.studio import connect
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, image_config
from backend.studio.server import LabelStudioServer
from tests.conftest import forget_process_state
from tests.services import nextbatch
from tests.services.images import CACHE

CLASSES = tuple("0123456789")
HOLDOUT = 12


@dataclass(frozen=True)
class Asked:
    """What people are asked of a digit, the answer as a label, and how many items have one before the first round."""

    config: str
    answers: Sequence[str]
    labelled: int


@pytest.fixture
def asked() -> Asked:
    """Which digit it is. A test may ask something else."""
    return Asked(image_config(CLASSES), CLASSES, HOLDOUT + 10)


@dataclass
class Loop:
    """A project of 60 handwritten digits, of which 12 are labelled in the holdout and, as a rule, 10 more by a person.

    `digits` are those that the tasks show, by task id.
    """

    project_id: int
    studio_project_id: int
    task: LabelTask
    log: Path
    closing: ExitStack
    digits: dict[int, int]

    def ask(self) -> int:
        with transaction() as session:
            return request_round(session, self.project_id, "hand").number

    def work(self) -> None:
        """Start a worker, in this process."""
        self.closing.enter_context(nextbatch.working())

    def state(self, number: int) -> str | None:
        with reading() as session:
            return session.scalar(
                sa.select(Round.state).where(Round.project_id == self.project_id, Round.number == number)
            )

    def step(self, number: int) -> str | None:
        with reading() as session:
            return session.scalar(
                sa.select(Round.step).where(Round.project_id == self.project_id, Round.number == number)
            )

    def wait_done(self, number: int, timeout_s: float = 200) -> float:
        """Seconds until the round is done."""
        started = time.monotonic()
        assert wait_until(lambda: self.state(number) in ("done", "failed"), timeout_s), self.log.read_text()[-3000:]
        assert self.state(number) == "done", self.log.read_text()[-3000:]
        return time.monotonic() - started


@pytest.fixture
def loop(
    store: str, home: Path, encoders: Path, server: LabelStudioServer, studio: Studio, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, asked: Asked,
) -> Iterator[Loop]:  # fmt: skip
    assert store
    data = digits(CACHE)
    (home / "encoders").symlink_to(encoders)
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(data.root))
    monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.account.token)
    forget_process_state()
    name = f"digits-{uuid.uuid4().hex[:8]}"
    config = asked.config
    task = LabelTask.parse(config)
    project = connect.ensure_project(studio, name, config)
    files = list(zip(map(str, data.train.paths), map(int, data.train.labels), strict=True))
    shown = files[:: len(files) // 60][:60]
    tasks = [
        connect.TaskToImport(f"{place:040d}", {"image": path}, asked.answers[digit] if place < asked.labelled else None)
        for place, (path, digit) in enumerate(shown)
    ]
    ids = connect.import_tasks(studio, project.id, tasks, task, lambda _line: None)
    with transaction() as session:
        row = Project(
            name=name,
            config={"name": name, "batch": {"size": 8, "holdout_share": 0, "first_holdout": 0}},
            studio_project_id=project.id,
            label_config=config,
        )
        session.add(row)
        session.flush()
        project_id = row.id
        from backend.pool.catalog import NewItem, add_items

        add_items(
            session,
            project_id,
            [NewItem(str(one.data["image"]), task_id=ids[one.key], is_holdout=n < HOLDOUT, key=one.key)
             for n, one in enumerate(tasks)],
        )  # fmt: skip
    log = tmp_path / "worker.log"
    log.touch()
    with ExitStack() as closing:
        pictured = {ids[one.key]: digit for one, (_, digit) in zip(tasks, shown, strict=True)}
        yield Loop(project_id, project.id, task, log, closing, pictured)

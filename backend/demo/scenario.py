"""The demo: a real Label Studio, a real Triton, a real loop, and a simulated person who labels in the model's order."""

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from backend import environments, seed, supervisor
from backend.database import Batch, Item, ModelVersion, Pick, Project, Round, engine, reading
from backend.demo.annotator import Annotator
from backend.demo.arm import RandomArm
from backend.demo.report import HEADER, RoundLine, draw, keep_arm, line, write_json
from backend.errors import NextbatchError
from backend.pool.catalog import item_key
from backend.pool.folders import Dataset, open_dataset
from backend.processes import free_port, wait_until
from backend.rounds import queue
from backend.settings import (
    BatchSection,
    LabelStudioSection,
    PoolSection,
    ProjectConfig,
    TriggerSection,
    settings,
)
from backend.studio.labels import LabelTask
from backend.studio.server import Account, LabelStudioServer

Say = Callable[[str], None]

QUIET_S = 2.0
HOLDOUT = 500


@dataclass(frozen=True)
class Scenario:
    """What `nextbatch demo` was asked for."""

    data: str | None
    publish: str
    rounds: int
    pool: int
    batch: int
    out: Path
    seed: int
    stay: bool


class NotClosed(NextbatchError):
    """The loop did not close: {problem}. Logs are in {logs}."""


def run(scenario: Scenario, say: Say) -> int:
    """Play the scenario; the exit status. Whatever happens, nothing is left running."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _interrupt(stopping))
    out = scenario.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            demo = _Demo(scenario, out, stack, say)
            rows = demo.play()
            if scenario.stay:
                say(f"\nLabel on at {demo.studio.url} as {demo.account.username}, password {demo.account.password}")
                say("Ctrl-C stops everything.")
                stopping.wait()
        except KeyboardInterrupt:
            say("\nstopped")
            return 130
        except NextbatchError as error:
            say(f"\n{error}")
            return 1
        return 0 if len(rows) == scenario.rounds else 1


def _interrupt(stopping: threading.Event) -> None:
    stopping.set()
    raise KeyboardInterrupt


class _Demo:
    """Everything that one demo holds; `stack` stops it in reverse order."""

    def __init__(self, scenario: Scenario, out: Path, stack: ExitStack, say: Say) -> None:
        self.scenario, self.out, self.say = scenario, out, say
        started = time.monotonic()
        # Label Studio's and Triton's environments are built while the data is read.
        with ThreadPoolExecutor(2) as builders:
            studio_env = builders.submit(environments.ensure, "label-studio", environments.LABEL_STUDIO, self._tell)
            triton_env = builders.submit(environments.ensure, "triton", environments.TRITON, self._tell)
            dataset = open_dataset(_data(scenario), settings().cache / "datasets")
            self.say(f"data: {dataset.origin}")
            studio_env.result(), triton_env.result()
        home = out / "home"
        shutil.rmtree(home, ignore_errors=True)
        _share_encoders(home / "nextbatch", settings().cache / "encoders")
        self.logs = home / "logs"
        self.root = home / "data"  # what may be read; Label Studio shows only folders below it
        self.images = self.root / "images"
        self.labels = _lay_out(dataset, self.root, scenario)
        self.classes = dataset.classes

        self.account = Account.random()
        self.studio = LabelStudioServer(
            studio_env.result(), home / "label-studio", free_port(), self.account, progress=self._tell,
            local_files=self.root,
        )  # fmt: skip
        stack.callback(self.studio.stop)
        self.studio.start()
        web_port = free_port()
        os.environ |= {
            "NEXTBATCH_HOME": str(home / "nextbatch"),
            "NEXTBATCH_DATA_ROOT": str(self.root),
            "NEXTBATCH_URL": f"http://127.0.0.1:{web_port}",
            "NEXTBATCH_WEBHOOK_SECRET": secrets.token_hex(16),
            "LABEL_STUDIO_URL": self.studio.url,
            "LABEL_STUDIO_API_KEY": self.account.token,
        }
        for cached in (settings, engine, queue.client):
            cached.cache_clear()
        self.supervisor = supervisor.Supervisor(port=web_port, logs=self.logs)
        stack.callback(self.supervisor.stop)
        self.supervisor.start(self._tell)
        stack.enter_context(self.supervisor.watching())
        self.studio.wait_ready()
        self.say(
            f"Label Studio at {self.studio.url}, backend at {self.supervisor.url}, encoder in {self.supervisor.engine}"
        )
        self.started_in_s = time.monotonic() - started

    def play(self) -> list[RoundLine]:
        """Seed, label round after round, and write what was seen."""
        config = self._config()
        report = seed.seed(config, self._tell)
        first = seed.wait_for_round(report.project_id, 1, self._tell, timeout_s=600)
        self.say(f"{report.items} items, {report.holdout} of them holdout; the first batch comes from embeddings alone")
        self.say(HEADER)
        task = LabelTask.parse(_label_config(report.project_id))
        annotator = Annotator(self.studio.url, self.account.token, report.studio_project_id)
        arm = RandomArm(report.project_id, self.labels, self.classes, self.scenario.seed)
        rows: list[RoundLine] = []
        for number in range(first.number, first.number + self.scenario.rounds):
            rows.append(self._round(report.project_id, number, annotator, task, arm))
            self.say(line(rows[-1]))
            self._write(rows, report.holdout)
            keep_arm(report.project_id, rows)
        annotator.close()
        self.say(f"\nwrote {self.out / 'report.json'} and {self.out / 'curves.png'}")
        return rows

    def _round(self, project_id: int, number: int, annotator: Annotator, task: LabelTask, arm: RandomArm) -> RoundLine:
        """Label the batch of round `number`; the line tells of the round that these labels cause."""
        batch, expected = _published(project_id, number)
        drawn: list[int] = []
        for _ in expected:
            given = annotator.draw()
            if given is None:
                raise NotClosed(problem=f"Label Studio has no task left in {batch.version}", logs=self.logs)
            drawn.append(given.task_id)
            annotator.submit(given.task_id, task.to_result(self.labels[str(given.data["nextbatch_key"])]))
        quiet_ends = time.monotonic() + QUIET_S

        if not wait_until(lambda: _batch_of_round(project_id, number + 1) is not None, timeout_s=120):
            raise NotClosed(problem=f"no batch followed {batch.version} within 120 s", logs=self.logs)
        seen_at = time.monotonic()
        following = _batch_of_round(project_id, number + 1)
        version = _learned(project_id, number + 1)
        arms = arm.accuracies(version.lineage["labels"])
        return RoundLine(
            round=number,
            labels=version.lineage["labels"],
            accuracy=version.metrics["accuracy"],
            interval=(version.metrics["accuracy_interval"]["low"], version.metrics["accuracy_interval"]["high"]),
            random_accuracy=float(np.mean(arms)),
            random_accuracies=arms,
            in_order=sum(a == b for a, b in zip(drawn, expected, strict=True)) / len(expected),
            seconds_to_next_batch=seen_at - quiet_ends,
            strategy=batch.strategy,
            policy=batch.policy,
            version=version.name,
            batch=following.version if following else "",
        )

    def _config(self) -> ProjectConfig:
        scenario = self.scenario
        return ProjectConfig(
            name="demo",
            label_studio=LabelStudioSection(title="nextbatch demo", labels=self.classes),
            pool=PoolSection(
                source="folder",
                path=str(self.images / "pool"),
                holdout_path=str(self.images / "holdout"),
                holdout_items=HOLDOUT,
            ),
            batch=BatchSection(size=scenario.batch, holdout_share=0, first_holdout=0),
            trigger=TriggerSection(new_labels=scenario.batch, quiet_s=QUIET_S, rest_share=0),
            publish="create" if scenario.publish == "create" else "reorder",
            seed=scenario.seed,
        )

    def _write(self, rows: list[RoundLine], holdout: int) -> None:
        facts: dict[str, Any] = {
            "seed": self.scenario.seed,
            "publish": self.scenario.publish,
            "pool": self.scenario.pool,
            "holdout": holdout,
            "versions": [{"version": row.version, "batch": row.batch} for row in rows],
            "engine": self.supervisor.engine,
            "seconds_to_start": round(self.started_in_s, 1),
        }
        write_json(self.out / "report.json", rows, facts)
        draw(self.out / "curves.png", rows, holdout)

    def _tell(self, text: str) -> None:
        self.say(f"  … {text}")


def _data(scenario: Scenario) -> Path | None:
    given = scenario.data or os.environ.get("NEXTBATCH_DATA")
    return Path(given).expanduser() if given else None


def _share_encoders(home: Path, kept: Path) -> None:
    """A demo's home begins empty; what was exported once is as good for the next one."""
    kept.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True)
    (home / "encoders").symlink_to(kept)


def _lay_out(dataset: Dataset, root: Path, scenario: Scenario) -> dict[str, str]:
    """Copy a sample of the data: the pool under names that tell nothing, the holdout in class folders.

    Returns the true label by item key. Where there is no test part, the holdout is taken from the same files.
    """
    generator = np.random.default_rng(scenario.seed)
    train = list(zip(dataset.train.paths, dataset.train.labels, strict=True))
    test = list(zip(dataset.test.paths, dataset.test.labels, strict=True))
    train = [train[place] for place in generator.permutation(len(train))]
    test = [test[place] for place in generator.permutation(len(test))]
    if not test:
        share = min(HOLDOUT, len(train) // 4)
        test, train = train[:share], train[share:]
    truth: dict[str, str] = {}
    for place, (path, label) in enumerate(train[: scenario.pool]):
        target = root / "images" / "pool" / f"{place:06d}{path.suffix.lower()}"
        truth[_copy(path, target, root)] = dataset.classes[label]
    for place, (path, label) in enumerate(test[:HOLDOUT]):
        target = root / "images" / "holdout" / dataset.classes[label] / f"{place:06d}{path.suffix.lower()}"
        truth[_copy(path, target, root)] = dataset.classes[label]
    return truth


def _copy(path: Path, target: Path, root: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return item_key(f"/data/local-files/?d={target.relative_to(root)}")


def _label_config(project_id: int) -> str:
    with reading() as session:
        return session.get_one(Project, project_id).label_config


def _batch_of_round(project_id: int, number: int) -> Batch | None:
    with reading() as session:
        return session.scalar(
            sa.select(Batch)
            .join(Round, Round.id == Batch.round_id)
            .where(Round.project_id == project_id, Round.number == number, Batch.state == "published")
        )


def _published(project_id: int, number: int) -> tuple[Batch, list[int]]:
    """The batch that a round published, and its task ids in rank order."""
    batch = _batch_of_round(project_id, number)
    if batch is None:
        raise NotClosed(problem=f"round {number} published nothing", logs=settings().home / "logs")
    with reading() as session:
        tasks = session.scalars(
            sa.select(Item.task_id)
            .join(Pick, Pick.item_id == Item.id)
            .where(Pick.batch_id == batch.id)
            .order_by(Pick.rank)
        )
        return batch, [task_id or 0 for task_id in tasks]


def _learned(project_id: int, number: int) -> ModelVersion:
    with reading() as session:
        version = session.scalar(
            sa.select(ModelVersion)
            .join(Round, Round.id == ModelVersion.round_id)
            .where(Round.project_id == project_id, Round.number == number)
        )
    if version is None:
        raise NotClosed(problem=f"round {number} made no model version", logs=settings().home / "logs")
    return version

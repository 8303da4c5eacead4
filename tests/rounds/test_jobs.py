"""A large scan is shared out: workers that share nothing but the database encode it, and one that dies costs little."""

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import sqlalchemy as sa

from backend.database import Item, Job, Parcel, Project, Worker, reading, transaction
from backend.errors import BadVectors
from backend.learning.encoders import EncoderSpec
from backend.pool.catalog import NewItem, add_items
from backend.pool.decode import decode
from backend.processes import stop, wait_until
from backend.rounds import encoding, jobs
from backend.rounds.encoding import Embeddings
from backend.rounds.heartbeat import alive_here
from backend.rounds.outbox import Outbox, drain
from backend.rounds.queue import prepare_database
from backend.scoring.local import LocalEncoder
from backend.scoring.repository import model_name
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.stages import Speed
from backend.scoring.triton import connect
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from backend.studio.labels import image_config
from tests.conftest import forget_process_state
from tests.services import machines, postgres
from tests.services.images import files
from tests.services.triton import inferences

ITEMS, JOB_ITEMS = 240, 12


@dataclass
class Pool:
    """A project of real images on Postgres, and workers on `machines` with homes of their own."""

    project_id: int
    folder: Path
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def work(self, home: Path, role: str) -> "subprocess.Popen[bytes]":
        home.mkdir(exist_ok=True)
        if not (home / "encoders").exists():
            (home / "encoders").symlink_to(settings().home / "encoders")
        environment = os.environ | {"NEXTBATCH_HOME": str(home), "NEXTBATCH_ROLE": role}
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "worker"], stdout=log, stderr=log, env=environment
            )
        self.workers.append(process)
        return process

    def beating(self) -> set[str]:
        with reading() as session:
            return set(session.scalars(sa.select(Worker.executor_id)))

    def held_by(self, process: "subprocess.Popen[bytes]") -> list[Job]:
        with reading() as session:
            mine = (Job.worker == self.name_of(process), Job.state == "running")
            return list(session.scalars(sa.select(Job).where(*mine)))

    def start_on(self, machine: machines.Machine, home: Path, environment: dict[str, str]) -> None:
        home.mkdir(exist_ok=True)
        if not (home / "encoders").exists():
            (home / "encoders").symlink_to(settings().home / "encoders")
        command = [sys.executable, "-m", "backend.cli", "worker"]
        self.workers.append(machine.start(command, environment, self.folder / "workers.log"))

    def held_on(self, host: str) -> list[int]:
        with reading() as session:
            names = sa.select(Worker.executor_id).where(Worker.host == host)
            return list(session.scalars(sa.select(Job.id).where(Job.worker.in_(names), Job.state == "running")))

    def name_of(self, process: "subprocess.Popen[bytes]") -> str | None:
        with reading() as session:
            return session.scalar(sa.select(Worker.executor_id).where(Worker.pid == process.pid))

    def log(self) -> str:
        return (self.folder / "workers.log").read_text()[-4000:]


def forget_stores() -> None:
    for cached in (encoding.embeddings_of, encoding.open_encoder):
        cached.cache_clear()
    forget_process_state()


@pytest.fixture
def database(home: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with postgres.database(postgres_url, f"t{uuid.uuid4().hex[:12]}") as url:
        monkeypatch.setenv("NEXTBATCH_DATABASE_URL", url)
        monkeypatch.setenv("NEXTBATCH_JOB_ITEMS", str(JOB_ITEMS))
        forget_stores()
        prepare_database()
        yield url
        forget_stores()


@pytest.fixture
def pool(
    database: str, home: Path, tmp_path: Path, triton: EmbeddedTriton, exact: EncoderSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pool]:  # fmt: skip
    assert database
    paths = files(ITEMS)
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", os.path.commonpath(paths))
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")
    monkeypatch.setenv("TRITON_URL", triton.url)
    forget_stores()
    (home / "encoders").symlink_to(exact.path.parent.parent)
    made = Pool(add_project([str(path) for path in paths]), tmp_path)
    yield made
    for worker in made.workers:
        stop(worker)


def add_project(uris: list[str]) -> int:
    with transaction() as session:
        project = Project(name="pool", config={"name": "pool"}, label_config=image_config(("a", "b")))
        session.add(project)
        session.flush()
        add_items(session, project.id, [NewItem(uri) for uri in uris])
        return project.id


def encodes(triton: EmbeddedTriton, spec: EncoderSpec) -> int:
    return inferences(triton, model_name(spec.name, spec.digest))


def test_three_workers_share_a_scan_and_a_killed_one_costs_at_most_what_it_held(
    pool: Pool, home: Path, tmp_path: Path, triton: EmbeddedTriton, exact: EncoderSpec
) -> None:
    with closing(connect(triton.url)) as client:  # three workers that load it at once begin its count anew
        client.load_model(model_name(exact.name, exact.digest))
    before = encodes(triton, exact)
    victim = pool.work(tmp_path / "far", "encode")
    pool.work(tmp_path / "farther", "encode")
    pool.work(home, "all")
    process = psutil.Process(victim.pid)
    told: list[tuple[int, int, Speed]] = []
    outcome: list[dict[str, int]] = []
    gathering = threading.Thread(
        target=lambda: outcome.append(jobs.encode(pool.project_id, lambda *count: told.append(count)))
    )
    assert wait_until(lambda: len(pool.beating()) == 3, 200), pool.log()
    assert alive_here() == 3
    gathering.start()

    def is_caught() -> bool:
        if not pool.held_by(victim):
            return False
        process.suspend()
        if pool.held_by(victim):
            return True
        process.resume()
        return False

    assert wait_until(is_caught, 120, poll_s=0.01), pool.log()
    held = [(job.id, job.items) for job in pool.held_by(victim)]
    victim.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()

    dead = pool.name_of(victim)

    def are_taken_over() -> bool:
        with reading() as session:
            workers = session.scalars(sa.select(Job.worker).where(Job.id.in_([id_ for id_, _ in held]))).all()
        return dead not in workers

    assert wait_until(are_taken_over, 120), pool.log()
    took_s = time.monotonic() - killed_at
    gathering.join(200)

    assert outcome == [{"encoded": ITEMS, "failed": 0}], pool.log()
    assert told[-1][:2] == (ITEMS, ITEMS)
    assert took_s < 15
    assert 1 <= len(held) <= 2
    assert wait_until(lambda: encodes(triton, exact) - before >= ITEMS, 60)
    assert encodes(triton, exact) - before <= ITEMS + sum(items for _, items in held)
    with reading() as session:
        workers = set(session.scalars(sa.select(Job.worker)))
        speeds = [Speed.from_dict(stages) for stages in session.scalars(sa.select(Job.stages))]
        assert session.scalar(sa.select(sa.func.count()).select_from(Parcel)) == 0
        rows = session.execute(sa.select(Item.state, Item.uri, Item.content_hash)).all()
        project = session.get_one(Project, pool.project_id)
    assert {state for state, _, _ in rows} == {"encoded"}
    assert len(workers) >= 2
    assert sum(speed.stages["fetch"].items_per_s > 0 for speed in speeds) >= len(speeds) - len(held)
    sample = rows[::10]
    stored = encoding.open_embeddings(project).store.gather([hash_ for _, _, hash_ in sample]).astype(np.float64)
    pixels = np.stack([decode(Path(uri).read_bytes(), exact.side) for _, uri, _ in sample])
    expected = LocalEncoder(exact).encode(pixels).astype(np.float64)
    cosines = (stored * expected).sum(1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9999


def test_a_machine_that_is_cut_off_is_replaced_and_a_dead_triton_left_out(
    pool: Pool, home: Path, tmp_path: Path, database: str, triton: EmbeddedTriton, second_triton: EmbeddedTriton,
    exact: EncoderSpec,
) -> None:  # fmt: skip
    if reason := machines.why_not():
        pytest.skip(reason)
    port_of = lambda url: int(re.search(r":(\d+)", url.rpartition("@")[2])[1])  # noqa: E731
    roles = ("encode", "encode", "all")
    with ExitStack() as stack:
        network = stack.enter_context(machines.running(3))
        ports = [
            stack.enter_context(machines.forwarding(network.address, port_of(url)))
            for url in (database, triton.url, second_triton.url)
        ]
        reached = [f"{network.address}:{port}" for port in ports]
        there = os.environ | {
            "NEXTBATCH_DATABASE_URL": database.replace(f"127.0.0.1:{port_of(database)}", reached[0]),
            "TRITON_URL": ",".join(reached[1:]),
        }
        for machine, role in zip(network.machines, roles, strict=True):
            folder = home if role == "all" else tmp_path / machine.name
            pool.start_on(machine, folder, there | {"NEXTBATCH_HOME": str(folder), "NEXTBATCH_ROLE": role})
        assert wait_until(lambda: len(pool.beating()) == 3, 180), pool.log()
        outcome: list[dict[str, int]] = []
        gathering = threading.Thread(target=lambda: outcome.append(jobs.encode(pool.project_id, lambda *_: None)))
        gathering.start()
        lost = network.machines[0]

        held: list[int] = []
        assert wait_until(lambda: bool(held.extend(pool.held_on(lost.name)) or held), 60, poll_s=0.01), pool.log()
        lost.unplug()
        unplugged_at = time.monotonic()
        assert second_triton.pid is not None
        os.kill(second_triton.pid, signal.SIGKILL)
        held = pool.held_on(lost.name)
        assert wait_until(lambda: not set(pool.held_on(lost.name)) & set(held), 60), pool.log()
        took_s = time.monotonic() - unplugged_at
        gathering.join(200)

    assert outcome == [{"encoded": ITEMS, "failed": 0}], pool.log()
    assert took_s < 15
    with reading() as session:
        hosts = set(session.scalars(sa.select(Worker.host)))
    assert hosts == {machine.name for machine in network.machines}


@pytest.fixture
def small(tmp_path: Path, exact: EncoderSpec) -> Embeddings:
    return Embeddings(dataclasses.replace(exact, dims=8), VectorStore(tmp_path / "vectors", exact.digest, 8))


def cut(project_id: int, digest: str) -> list[tuple[int, int, int]]:
    with transaction() as session:
        jobs._cut(session, project_id, digest)
        return [(job.first_item, job.last_item, job.items) for job in session.scalars(sa.select(Job).order_by(Job.id))]


def test_cutting_again_covers_only_what_came_since(database: str) -> None:
    project_id = add_project([f"file:{n}" for n in range(3 * JOB_ITEMS - 2)])

    first = cut(project_id, "d" * 64)
    again = cut(project_id, "d" * 64)
    with transaction() as session:
        add_items(session, project_id, [NewItem(f"file:more{n}") for n in range(3)])
    more = cut(project_id, "d" * 64)

    assert [items for _, _, items in first] == [JOB_ITEMS, JOB_ITEMS, JOB_ITEMS - 2]
    assert again == first
    assert more[:3] == first
    assert [items for _, _, items in more[3:]] == [3]


def test_a_few_items_are_no_job(database: str) -> None:
    assert cut(add_project([f"file:{n}" for n in range(JOB_ITEMS - 1)]), "d" * 64) == []


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_what_is_sent_is_stored_once_whatever_is_cut_short(
    database: str, small: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = add_project([f"file:{n}" for n in range(JOB_ITEMS)])
    cut(project_id, small.digest)
    with reading() as session:
        job = session.scalars(sa.select(Job)).one()
        ids = list(session.scalars(sa.select(Item.id).order_by(Item.id)))
    outbox = Outbox(job.id, 8)
    rows = np.arange(24, dtype=np.float32).reshape(3, 8)
    outbox.put([content(n) for n in range(3)], rows)
    outbox.send({ids[0]: content(0), ids[1]: content(1)})
    outbox.send({ids[2]: content(2), ids[3]: content(0)})  # the last is the first one's double
    with monkeypatch.context() as patch:
        patch.setattr("backend.pool.catalog.mark_encoded", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
        with pytest.raises(OSError, match="killed here"):
            drain(project_id, small)

    stored = drain(project_id, small)

    assert (stored, drain(project_id, small)) == (4, 0)
    np.testing.assert_array_equal(small.store.gather([content(n) for n in range(3)]), rows)
    assert len(small.store) == 3
    with reading() as session:
        encoded = session.execute(sa.select(Item.id, Item.content_hash).where(Item.state == "encoded")).all()
    assert {(id_, hash_) for id_, hash_ in encoded} == set(
        zip(ids[:4], [content(0), content(1), content(2), content(0)], strict=True)
    )


def test_an_outbox_knows_its_own_contents_and_refuses_what_cannot_be_stored(database: str) -> None:
    outbox = Outbox(1, 8)
    outbox.put([content(1)], np.ones((1, 8), np.float32))

    assert outbox.locate([content(1), content(2)]).tolist() == [0, -1]
    with pytest.raises(BadVectors):
        outbox.put([content(3)], np.full((1, 8), np.nan, np.float32))

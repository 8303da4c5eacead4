"""Faults planted in a live set-up, each of which doctor names alone: web as it runs, a real Label Studio beside it.

That a worker and a round are seen, and repeated mending, stand in tests/rounds/test_doctor.py.
"""

import datetime as dt
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from PIL import Image

from backend.connections import answers
from backend.database import Batch, Item, Pick, Project, Round, Worker, engine, now, transaction
from backend.doctor import Finding, examine
from backend.pool.catalog import NewItem, add_items, item_key
from backend.processes import free_port, spawn, stop, wait_until
from backend.rounds.queue import prepare_database
from backend.settings import settings
from backend.studio import connect
from backend.studio import server as server_module
from backend.studio.client import Studio
from backend.studio.labels import image_config
from backend.studio.publish import PublishPick, PublishPlan, publish
from backend.studio.server import Account, LabelStudioServer
from tests.conftest import forget_process_state
from tests.services.label_studio import LABELS, TASK

SECRET, LOGIN = "correct-horse-battery", ("studio", "pass:word/staple")
VARIABLES = ("DATABASE_URL", "URL", "DATA_ROOT", "USERNAME", "PASSWORD", "WEBHOOK_SECRET")


@dataclass
class Live:
    """A connected project with a published batch of three tasks, and the web process that it is connected to."""

    home: Path
    port: int
    name: str
    studio: Studio
    studio_id: int = 0
    project_id: int = 0
    web: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def path(self) -> str:
        return f"/api/projects/{self.studio_id}/"

    def start(self, **environment: str) -> None:
        """Start `nextbatch web` with this process's environment and `environment`; an empty value takes it away."""
        wanted = {name: value for name, value in (os.environ | environment).items() if value}
        command = [sys.executable, "-m", "backend.cli", "web", "--port", str(self.port)]
        self.web = spawn(command, self.home / "web.log", wanted)
        assert wait_until(lambda: answers(f"{self.url}/health"), timeout_s=120), (self.home / "web.log").read_text()

    def stop(self) -> None:
        if self.web is not None:
            stop(self.web)

    def hooks(self) -> list[int]:
        return [int(one["id"]) for one in connect.webhooks(self.studio, self.studio_id)]

    def beat(self) -> None:
        """A worker is seen for as long as doctor may look, on a busy machine too."""
        with transaction() as session:
            seen = now() + dt.timedelta(minutes=2)
            session.merge(Worker(executor_id="test", host="here", pid=1, seen_at=seen))


@pytest.fixture(scope="module")
def live(server: LabelStudioServer, studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("home")
    made = Live(home, free_port(), f"pets-{uuid.uuid4().hex[:8]}", studio)
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(f"NEXTBATCH_{name}", raising=False)
        patch.delenv("TRITON_URL", raising=False)
        patch.setenv("NEXTBATCH_HOME", str(home))
        patch.setenv("NEXTBATCH_DATA_ROOT", str(home / "images"))
        patch.setenv("NEXTBATCH_URL", made.url)
        patch.setenv("NEXTBATCH_USERNAME", LOGIN[0])
        patch.setenv("NEXTBATCH_PASSWORD", LOGIN[1])
        patch.setenv("NEXTBATCH_WEBHOOK_SECRET", SECRET)
        patch.setenv("LABEL_STUDIO_URL", server.url)
        patch.setenv("LABEL_STUDIO_API_KEY", server.account.token)
        forget_process_state()
        prepare_database()
        try:
            made.start()
            _connect(made)
            yield made
        finally:
            made.stop()
            forget_process_state()


def _connect(live: Live) -> None:
    folder = live.home / "images"
    folder.mkdir()
    uris = [f"/data/local-files/?d={n}.png" for n in range(3)]
    for n in range(3):
        Image.new("RGB", (40, 40), (80 * n, 9, 9)).save(folder / f"{n}.png")
    found = connect.ensure_project(live.studio, live.name, image_config(LABELS))
    live.studio_id = found.id
    tasks = [connect.TaskToImport(item_key(uri), {"image": uri}, None) for uri in uris]
    ids = connect.import_tasks(live.studio, found.id, tasks, TASK, lambda _line: None)
    connect.ensure_backend(live.studio, found.id, live.url, connect.backend_title(live.name), *LOGIN)
    connect.ensure_webhook(live.studio, found.id, f"{live.url}/webhook", SECRET)
    picks = tuple(PublishPick(item_key(uri), ids[item_key(uri)], {"image": uri}, "cat") for uri in uris)
    publish(live.studio, found.id, PublishPlan("v0+b1", "reorder", picks), TASK)
    with transaction() as session:
        project = Project(
            name=live.name, config={"name": live.name}, studio_project_id=found.id, label_config=found.label_config
        )
        session.add(project)
        session.flush()
        live.project_id = project.id
        add_items(session, project.id, [NewItem(uri, task_id=ids[item_key(uri)]) for uri in uris])
        items = session.scalars(sa.select(Item).where(Item.project_id == project.id).order_by(Item.task_id)).all()
        round_ = Round(project_id=project.id, number=1, workflow_id=f"round:{project.id}:1", state="done")
        session.add(round_)
        session.flush()
        batch = Batch(
            project_id=project.id, round_id=round_.id, number=1, version="v0+b1", strategy="random", state="published"
        )
        session.add(batch)
        session.flush()
        session.add_all(Pick(batch_id=batch.id, rank=rank, item_id=item.id) for rank, item in enumerate(items))


def looked(live: Live, fix: bool = False) -> list[Finding]:
    """What doctor says with a worker alive; never a secret, whatever it says."""
    live.beat()
    found = examine(fix=fix)
    said = "\n".join(map(str, found)) + json.dumps([one.as_dict() for one in found])
    key = settings().label_studio_api_key
    assert key is not None
    assert not [one for one in (SECRET, LOGIN[1], key.get_secret_value()) if one in said]
    return found


def faults(found: list[Finding]) -> dict[str, Finding]:
    return {one.check.rpartition(": ")[2]: one for one in found if one.is_fault}


def named(found: list[Finding], is_mended: bool = False) -> list[str]:
    return [one.check.rpartition(": ")[2] for one in found if (one.is_mended if is_mended else one.is_fault)]


def delete_backend(live: Live) -> None:
    for one in live.studio.get("/api/ml/", {"project": live.studio_id}):
        live.studio.delete(f"/api/ml/{one['id']}")


def delete_webhook(live: Live) -> None:
    for number in live.hooks():
        live.studio.delete(f"/api/webhooks/{number}/")


def add_choice(live: Live) -> None:
    live.studio.patch(live.path, {"label_config": image_config((*LABELS, "frog"))})


def add_automatic_webhook(live: Live) -> None:
    body = {"project": live.studio_id, "url": f"{live.url}/webhook", "send_for_all_actions": True}
    live.studio.post("/api/webhooks/", body)


def change_webhook(live: Live, **changes: object) -> None:
    live.studio.patch(f"/api/webhooks/{live.hooks()[0]}/", changes)


def fail_items(live: Live) -> None:
    with transaction() as session:
        items = session.scalars(sa.select(Item).where(Item.project_id == live.project_id)).all()
        for n, item in enumerate(items[:2]):
            item.state, item.failure = "failed", f"s3://pool/{n}.jpg: reading was refused (403)."


PLANTS: dict[str, tuple[Callable[[Live], object], str, str]] = {
    "the backend's title as version": (
        lambda live: live.studio.patch(live.path, {"model_version": connect.backend_title(live.name)}),
        "model version",
        "the backend's title; the batch is 'v0+b1'",
    ),
    "no version": (
        lambda live: live.studio.patch(live.path, {"model_version": ""}), "model version", "model_version is ''",
    ),
    "another sampling": (
        lambda live: live.studio.patch(live.path, {"sampling": "Sequential sampling"}), "sampling", "Sequential",
    ),
    "no backend": (delete_backend, "backend", "does not call http"),
    "no webhook": (delete_webhook, "webhook", "half made"),
    "no header": (lambda live: change_webhook(live, headers={}), "webhook", "does not carry the secret"),
    "switched off": (lambda live: change_webhook(live, is_active=False), "webhook", "switched off"),
    "the automatic webhook": (add_automatic_webhook, "automatic webhooks", "1 more webhook leads"),
    "a new choice": (add_choice, "project", "new choices: frog"),
    "items that cannot be read": (fail_items, "items", "2 of 3 items could not be read; most often (2)"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_fault_is_named_alone_and_mended(live: Live, plant: str) -> None:
    act, check, words = PLANTS[plant]
    act(live)

    seen = looked(live)
    mended = looked(live, fix=True)

    assert named(seen) == [check]  # the plant before this one is gone, too
    assert words in faults(seen)[check].what
    assert "nextbatch doctor --fix" in faults(seen)[check].mend
    assert (named(mended), named(mended, is_mended=True)) == ([], [check])


def test_mending_a_healthy_set_up_changes_nothing(live: Live) -> None:
    def state() -> list[object]:
        page = live.studio.get(live.path)
        entries = live.studio.get("/api/ml/", {"project": live.studio_id})
        return [live.hooks(), [one["id"] for one in entries], page["model_version"], page["sampling"]]

    before = state()

    found = looked(live, fix=True)

    assert (named(found), named(found, is_mended=True)) == ([], [])
    assert state() == before


def test_a_choice_that_is_gone_is_left_to_a_person(live: Live) -> None:
    known = live.studio.get(live.path)["label_config"]
    live.studio.patch(live.path, {"label_config": image_config(("cat", "dog", "boat"))})

    found = looked(live, fix=True)

    live.studio.patch(live.path, {"label_config": known})
    assert named(found) == ["project"]
    assert "ship" in faults(found)["project"].what
    assert f"nextbatch seed configs/{live.name}.yaml" in faults(found)["project"].mend


def test_several_annotations_of_every_task_are_told_and_left_to_a_person(live: Live) -> None:
    live.studio.patch(live.path, {"maximum_annotations": 2})

    found = looked(live, fix=True)

    live.studio.patch(live.path, {"maximum_annotations": 1})
    assert named(found) == ["annotations per task"]
    assert "active_lab" in faults(found)["annotations per task"].mend


def test_a_stopped_web_process_is_the_only_fault(live: Live) -> None:
    live.stop()
    try:
        found = looked(live)
    finally:
        live.start()

    assert named(found) == ["web"]
    assert "nextbatch serve" in faults(found)["web"].mend
    assert {one.check.rpartition(": ")[2] for one in found if not one.is_checked} == {"webhook secret", "backend"}


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """This process's settings, otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        forget_process_state()
        yield
    forget_process_state()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"NEXTBATCH_WEBHOOK_SECRET": "hunter-22"}, {"webhook secret": "refuses our", "webhook": "another secret"}),
        ({"NEXTBATCH_PASSWORD": "hunter-22"}, {"web": "another username or password"}),
    ],
)
def test_web_started_with_other_secrets_is_told(live: Live, values: dict[str, str], words: dict[str, str]) -> None:
    with environment(**values):
        found = faults(looked(live))

    assert found.keys() == words.keys()
    assert all(part in found[check].what for check, part in words.items())


def test_an_open_web_process_and_then_one_that_label_studio_has_no_password_for(live: Live) -> None:
    live.stop()
    live.start(NEXTBATCH_WEBHOOK_SECRET="", NEXTBATCH_USERNAME="", NEXTBATCH_PASSWORD="")
    opened = looked(live)
    delete_backend(live)
    connect.ensure_backend(live.studio, live.studio_id, live.url, connect.backend_title(live.name), None, None)
    connect.ensure_webhook(live.studio, live.studio_id, f"{live.url}/webhook", SECRET)
    live.stop()
    live.start()

    seen = looked(live)
    mended = looked(live, fix=True)

    assert named(opened) == ["webhook secret"]
    assert "took a call without the secret" in faults(opened)["webhook secret"].what
    assert named(seen) == ["backend"]
    assert "without our username and password" in faults(seen)["backend"].what
    assert (named(mended), named(mended, is_mended=True)) == ([], ["backend"])


def test_a_refused_token_stops_nothing_that_does_not_need_it(live: Live) -> None:
    with environment(LABEL_STUDIO_API_KEY="f" * 40):
        found = looked(live)

    assert named(found) == ["Label Studio"]
    assert "refuses the API key (a legacy token)" in faults(found)["Label Studio"].what
    fine = {one.check.rpartition(": ")[2] for one in found if one.is_checked and not one.is_fault}
    assert {"database", "storage", "worker", "web", "webhook secret", "source", "items", "rounds"} <= fine


def test_it_says_which_kind_of_token_is_used(live: Live, personal_token: str) -> None:
    with environment(LABEL_STUDIO_API_KEY=personal_token):
        personal = looked(live)
    legacy = looked(live)

    kinds = [next(one.what for one in found if one.check == "Label Studio") for found in (personal, legacy)]
    assert named(personal) == named(legacy) == []
    assert [kind.rpartition("with ")[2] for kind in kinds] == ["a personal access token", "a legacy token"]


@pytest.mark.parametrize(
    ("values", "check", "words"),
    [
        ({"LABEL_STUDIO_URL": "http://user:pass:word%2Fstaple@127.0.0.1:9"}, "Label Studio", "user:***@127.0.0.1:9"),
        ({"TRITON_URL": "127.0.0.1:9"}, "triton", "127.0.0.1:9"),
        ({"NEXTBATCH_DATA_ROOT": "/nowhere"}, "source", "none of 3 items can be read"),
    ],
)
def test_a_wrong_address_is_named(live: Live, values: dict[str, str], check: str, words: str) -> None:
    with environment(**values):
        found = looked(live)

    assert named(found) == [check]
    assert words in faults(found)[check].what


def test_label_studio_at_webs_address_is_no_web(live: Live) -> None:
    with environment(NEXTBATCH_URL=live.studio.url):
        found = faults(looked(live))

    assert set(found) == {"web", "backend", "webhook"} or set(found) == {"webhook secret", "backend", "webhook"}


def test_a_deleted_project_is_named_once(live: Live) -> None:
    with transaction() as session:
        session.get_one(Project, live.project_id).studio_project_id = 999_999
    try:
        found = looked(live)
    finally:
        with transaction() as session:
            session.get_one(Project, live.project_id).studio_project_id = live.studio_id

    assert named(found) == ["project"]
    assert "no project 999999" in faults(found)["project"].what


def test_a_failed_round_tells_its_reason(live: Live) -> None:
    with transaction() as session:
        row = Round(
            project_id=live.project_id, number=2, workflow_id="round:x:2", state="failed", failure="The disk is full."
        )
        session.add(row)
    try:
        found = looked(live)
    finally:
        with transaction() as session:
            session.execute(sa.delete(Round).where(Round.number == 2))

    assert named(found) == ["rounds"]
    assert "The disk is full." in faults(found)["rounds"].what


def test_a_silent_worker_is_named(live: Live) -> None:
    with transaction() as session:
        session.merge(Worker(executor_id="test", host="here", pid=1, seen_at=now() - dt.timedelta(seconds=20)))

    found = examine()

    assert named(found) == ["worker"]
    assert re.search(r"[2-9]\d s ago", faults(found)["worker"].what)


def test_a_clock_that_is_off_is_named(live: Live) -> None:
    """A proxy before Label Studio tells the time of a machine that is two minutes ahead."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = {"Authorization": self.headers.get("Authorization", "")}
            answer = httpx.get(f"{live.studio.url}{self.path}", headers=token, trust_env=False, timeout=20)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["content-type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(now() + dt.timedelta(minutes=2), usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        with environment(LABEL_STUDIO_URL=f"http://127.0.0.1:{proxy.server_port}"):
            found = looked(live)
    finally:
        proxy.shutdown()
        proxy.server_close()

    assert named(found) == ["clock"]
    assert re.search(r"1[12]\d s ahead", faults(found)["clock"].what)


def test_a_label_studio_that_blocks_private_addresses_is_told_how_to_stop(
    live: Live, python_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = server_module._environment
    blocks = {"SSRF_PROTECTION_ENABLED": "true", "ML_BLOCK_LOCAL_IP": "true"}
    monkeypatch.setattr(server_module, "_environment", lambda *given: plain(*given) | blocks)
    guarded = LabelStudioServer(python_env, tmp_path / "data", free_port(), Account.random())
    guarded.start()
    try:
        guarded.wait_ready()
        with Studio(guarded.url, guarded.account.token) as studio:
            studio_id = connect.ensure_project(studio, "guarded", image_config(LABELS)).id
        with transaction() as session:
            project = session.get_one(Project, live.project_id)
            project.studio_project_id, project.label_config = studio_id, image_config(LABELS)
        with environment(LABEL_STUDIO_URL=guarded.url, LABEL_STUDIO_API_KEY=guarded.account.token):
            found = faults(looked(live, fix=True))
    finally:
        guarded.stop()
        with transaction() as session:
            project = session.get_one(Project, live.project_id)
            project.studio_project_id = live.studio_id
            project.label_config = live.studio.get(live.path)["label_config"]

    assert {"backend", "webhook"} <= set(found)
    for check in ("backend", "webhook"):
        assert "ML_BLOCK_LOCAL_IP=false" in str(found[check])
        assert "SSRF_PROTECTION_ENABLED=false" in str(found[check])


def test_looking_makes_no_database_and_mending_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"NEXTBATCH_{name}", raising=False)
    home.rmdir()
    forget_process_state()

    seen = named(examine())
    was_there = home.exists()
    mended = named(examine(fix=True), is_mended=True)

    assert {"database", "storage"} <= set(seen)
    assert not was_there
    assert "database" in mended


def test_an_older_and_a_newer_database_are_told_apart(store: str) -> None:
    with engine().begin() as connection:
        head = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'from-the-future'"))

    newer = faults(examine())
    with engine().begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :head"), {"head": head})
    current = faults(examine())

    assert "newer nextbatch" in newer["database"].what
    assert "database" not in current

"""Our own Label Studio: quick to start, unattended, and gone with its parent."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from backend.errors import LabelStudioDied, LabelStudioMissing
from backend.processes import free_port, wait_until
from backend.studio.client import Studio
from backend.studio.server import Account, LabelStudioServer, pristine, version
from tests.services.label_studio import Person


def test_the_pristine_folder_holds_no_user_and_no_secret_key(python_env: Path) -> None:
    folder = pristine(python_env)

    assert pristine(python_env) == folder
    assert (folder / "label_studio.sqlite3").exists()
    assert not (folder / ".env").exists()
    found = subprocess.run(
        [sys.executable, "-c", f"""
import sqlite3
print(*sqlite3.connect({str(folder / "label_studio.sqlite3")!r}).execute("SELECT count(*) FROM htx_user").fetchone())
"""],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "0"


def test_it_listens_on_the_loopback_only(server: LabelStudioServer) -> None:
    assert server.pid is not None
    sockets = Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]
    listening = [row.split()[1] for row in sockets if row.split()[3] == "0A"]

    ours = [address for address in listening if address.endswith(f":{server.port:04X}")]

    assert ours == [f"0100007F:{server.port:04X}"]


def test_the_account_is_an_administrator_whose_token_works(server: LabelStudioServer, studio: Studio) -> None:
    assert studio.get("/api/current-user/whoami")["email"] == server.account.username
    assert studio.get("/api/version")["release"] == version(server.python_env)


def test_strangers_cannot_sign_up_without_the_invitation(server: LabelStudioServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as stranger:
        page = stranger.get("/user/signup/").text
        token = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        form = {"email": "stranger@example.com", "password": "long-enough-1", "csrfmiddlewaretoken": token}

        answer = stranger.post("/user/signup/", data=form, headers={"Referer": server.url})

    assert answer.status_code == 403


def test_two_people_signed_up_are_two_users(people: tuple[Person, Person]) -> None:
    assert people[0].user_id != people[1].user_id


def test_a_missing_environment_says_where_it_should_be(tmp_path: Path) -> None:
    server = LabelStudioServer(tmp_path / "nowhere", tmp_path / "data", free_port(), Account.random())

    with pytest.raises(LabelStudioMissing, match="nowhere/bin/label-studio"):
        server.start()


def test_a_server_that_ends_at_once_tells_the_end_of_its_log(tmp_path: Path) -> None:
    program = tmp_path / "env" / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho no such table: projects >&2\nexit 3\n")
    program.chmod(0o755)
    data = tmp_path / "data"
    data.mkdir()
    (data / "label_studio.sqlite3").touch()
    server = LabelStudioServer(tmp_path / "env", data, free_port(), Account.random())
    server.start()

    with pytest.raises(LabelStudioDied, match=r"exit code 3[\s\S]*no such table"):
        server.wait_ready(timeout_s=120)


def test_a_killed_parent_takes_label_studio_with_it(python_env: Path, tmp_path: Path) -> None:
    script = f"""
import signal
from pathlib import Path
from backend.processes import free_port
from backend.studio.server import Account, LabelStudioServer
server = LabelStudioServer(Path({str(python_env)!r}), Path({str(tmp_path)!r}) / "data", free_port(), Account.random())
server.start()
print(server.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())

        parent.kill()

        assert wait_until(lambda: _is_gone(child), timeout_s=60)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True

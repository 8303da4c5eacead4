"""A real Postgres of our own: a fresh cluster in a temporary folder, on loopback, gone with the tests."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from backend.processes import die_with_parent, free_port, wait_until

FOUND_UNDER = Path("/usr/lib/postgresql")


def find() -> Path | None:
    """The folder of `initdb` and `postgres`: on the path, or the newest Debian one."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(FOUND_UNDER.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def install() -> None:
    """Install Debian's package where we may; otherwise say what to do."""
    if find() is not None:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql"], check=True, env=environment)
        return
    raise RuntimeError("Postgres is missing. Install it, for example: sudo apt-get install postgresql")


@contextmanager
def running() -> Iterator[str]:
    """The URL of a new cluster's server; fsync is off, because the data is thrown away."""
    programs = find()
    assert programs is not None, "Postgres is missing: run python -m tests.services"
    # Postgres refuses to run as root: the package's own user does.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="nextbatch-postgres-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    who = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "nextbatch", "-A", "trust", "-E", "UTF8", "-N"],
            check=True, capture_output=True, cwd=folder, **who,
        )  # fmt: skip
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, preexec_fn=die_with_parent(), **who,
        )  # fmt: skip
        url = f"postgresql://nextbatch@127.0.0.1:{port}/postgres"
        assert wait_until(lambda: _accepts(url), timeout_s=120), "Postgres did not start within 120 s"
        yield url
        server.send_signal(signal.SIGINT)  # SIGTERM waits for every client to go
        server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(server_url: str, name: str) -> Iterator[str]:
    """An empty database of that name on a running server."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield server_url.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True

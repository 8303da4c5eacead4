"""A Label Studio of our own on this machine: prepared in seconds, loopback only, gone when its parent is gone.

Label Studio runs from an environment of its own, because its pins (Django, numpy, its SDK) are not ours.
"""

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from backend.connections import answers
from backend.errors import LabelStudioDied, LabelStudioMissing, LabelStudioNotReady
from backend.processes import spawn, stop, tail
from backend.settings import settings

Progress = Callable[[str], None]


def silent(_message: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Account:
    """The first user, an administrator. `token` is a legacy API token: 40 hexadecimal digits."""

    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)

    @classmethod
    def random(cls, username: str = "admin@example.com") -> "Account":
        return cls(username, secrets.token_urlsafe(12), secrets.token_hex(20))


def _environment(data_dir: Path, account: Account | None, local_files: Path | None = None) -> dict[str, str]:
    """Variables for an unattended Label Studio that may call a backend on a private address."""
    kept = {k: v for k, v in os.environ.items() if k in {"HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ"}}
    wanted = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        # Both are needed before it talks to a backend on a loopback or private address.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
    }
    if account is not None:
        wanted["LABEL_STUDIO_USERNAME"] = account.username
        wanted["LABEL_STUDIO_PASSWORD"] = account.password
        wanted["LABEL_STUDIO_USER_TOKEN"] = account.token
    if local_files is not None:
        wanted["LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED"] = "true"
        wanted["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] = str(local_files)
    return kept | wanted


def _program(python_env: Path) -> Path:
    program = python_env / "bin" / "label-studio"
    if not program.exists():
        raise LabelStudioMissing(path=program)
    return program


def version(python_env: Path) -> str:
    """The version of Label Studio that is installed in an environment, such as ``1.23.2``."""
    found = sorted(python_env.glob("lib/python3*/site-packages/label_studio-*.dist-info"))
    if not found:
        raise LabelStudioMissing(path=_program(python_env))
    return found[-1].name.removeprefix("label_studio-").removesuffix(".dist-info")


def pristine(python_env: Path, progress: Progress = silent) -> Path:
    """A data folder with every migration applied and no user in it; made once a version, then only read.

    Migrating takes about 46 s of a first start. The folder is built beside its place and renamed into it, so it is
    whole or absent. It holds no secret key: each copy makes its own.
    """
    key = hashlib.sha256(f"{version(python_env)}:{python_env.resolve()}".encode()).hexdigest()[:12]
    place = settings().cache / f"label-studio-{key}"
    if place.exists():
        return place
    progress("preparing Label Studio's database (once, about a minute)")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".label-studio-") as folder:
        made = Path(folder) / "data"
        made.mkdir()
        done = subprocess.run(  # noqa: S603 - Label Studio itself, from an environment of ours
            [_program(python_env), "version"],
            env=_environment(made, None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            raise LabelStudioDied(code=done.returncode, tail=(done.stdout + done.stderr)[-2000:])
        (made / ".env").unlink(missing_ok=True)
        try:
            made.rename(place)
        except OSError:
            # Another process was first: its folder is as good as ours.
            if not place.exists():
                raise
    return place


class LabelStudioServer:
    """One Label Studio with a data folder of its own, on 127.0.0.1. It shows files below `local_files`, if given.

    Start it from a thread that lives as long as the server should: the kernel ends the child with that thread.
    """

    def __init__(
        self,
        python_env: Path,
        data_dir: Path,
        port: int,
        account: Account,
        *,
        local_files: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self.python_env = python_env
        self.data_dir = data_dir
        self.port = port
        self.account = account
        self.local_files = local_files
        self.progress = progress
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.data_dir / "label-studio.log"

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start without waiting. A data folder that does not exist is a copy of the pristine one."""
        if self.pid is not None:
            return
        if not (self.data_dir / "label_studio.sqlite3").exists():
            source = pristine(self.python_env, self.progress)
            shutil.copytree(source, self.data_dir, dirs_exist_ok=True)
        self._process = spawn(
            [
                *(_program(self.python_env), "start", "--no-browser", "--log-level", "WARNING"),
                *("--internal-host", "127.0.0.1", "--port", str(self.port)),
            ],
            self.log,
            _environment(self.data_dir, self.account, self.local_files),
        )

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        """Return when /health answers; `LabelStudioDied` or `LabelStudioNotReady` say why it does not."""
        deadline = time.monotonic() + timeout_s
        self.progress("waiting for Label Studio")
        while time.monotonic() < deadline:
            if self._process is None or (code := self._process.poll()) is not None:
                raise LabelStudioDied(code=None if self._process is None else code, tail=tail(self.log))
            if answers(f"{self.url}/health", timeout_s=2.0):
                return
            time.sleep(0.1)
        raise LabelStudioNotReady(url=self.url, timeout_s=timeout_s, tail=tail(self.log))

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            stop(process)

    def kill(self) -> None:
        """End the process at once, as a crash would; the data folder keeps what was committed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        """Stop, start, wait until it answers. The data stays."""
        self.stop()
        self.start()
        self.wait_ready()

"""A real Triton as a child process, from a wheel: for one machine, without a container."""

import contextlib
import ctypes.util
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from backend import environments
from backend.errors import TritonFailed, TritonUnsupported
from backend.processes import free_port, spawn, stop, wait_until

GLIBC = (2, 35)
PYTHONS = ((3, 11), (3, 12))
START_S = 180.0  # of a busy machine: a few seconds otherwise
NICE = 5  # below web, which answers within a second; above the worker
LIFELINE = "NEXTBATCH_LIFELINE"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives, not a temporary file

Progress = Callable[[str], None]


def is_supported() -> tuple[bool, str]:
    """Whether Triton's wheel runs on this machine, and if not, why."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False, f"Triton's wheel is for Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    kind, version = platform.libc_ver()
    if kind != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        return False, f"Triton's wheel needs glibc 2.35 or later, this is {kind or 'another C library'} {version}"
    if sys.version_info[:2] not in PYTHONS:
        return False, f"Triton's wheel needs Python 3.11 or 3.12, this is {platform.python_version()}"
    if _libpython() is None:
        return False, "this Python comes without the shared libpython that Triton loads"
    return True, ""


class EmbeddedTriton:
    """Triton with the python backend, on loopback, models loaded only on request.

    `repository` is where `repository.write_model` puts models. After a restart no model is loaded; each client loads
    what it needs again, so that encoders nobody uses any more cost nothing. It dies with this process, however that
    ends, and its models' processes with it.
    """

    def __init__(self, folder: Path, progress: Progress = lambda _line: None) -> None:
        """Everything is kept below `folder`; nothing is started or written yet."""
        self.folder = folder.absolute()
        self.repository = self.folder / "models"
        self.log = self.folder / "triton.log"
        self._progress = progress
        self._port = free_port()
        self._child: _Child | None = None
        self._lock: IO[str] | None = None
        # Segments of other servers on this machine are not ours to clean.
        self._segments = "nextbatch_triton_" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]

    @property
    def url(self) -> str:
        """host:port of gRPC; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while there is one."""
        return self._child.process.pid if self._child else None

    def start(self) -> None:
        """Install Triton the first time, start it, and return when it answers.

        Raises TritonUnsupported, EnvironmentNotBuilt, or TritonFailed with the end of Triton's log.
        """
        is_fit, reason = is_supported()
        if not is_fit:
            raise TritonUnsupported(reason=reason)
        environment = environments.ensure("triton", environments.TRITON, self._progress)
        self.repository.mkdir(parents=True, exist_ok=True)
        self._hold()
        self._clean()
        backends = Path(tempfile.mkdtemp(prefix="backends-", dir=self.folder))
        site = environment / "lib" / _python() / "site-packages"
        _lay_out(site / "pytriton" / "tritonserver", backends)
        self._child = _Child(self._command(site, backends), self.log, _variables(environment, site))
        # tritonclient's channel would double its pauses while the server starts; a fresh client a try does not.
        if not wait_until(lambda: not self.is_alive() or _answers(self.url), START_S) or not self.is_alive():
            problem = "it ended at once" if not self.is_alive() else f"it did not answer within {START_S:.0f} s"
            self.stop()
            raise TritonFailed(problem=problem, log=self._tail())

    def stop(self) -> None:
        """Stop the server and its models' processes; leaves only the repository and the log."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._lock is not None:
            self._clean()
            self._lock.close()
            self._lock = None

    def restart(self) -> None:
        """Stop what is left of it and start it under the same address."""
        self.stop()
        self.start()

    def is_alive(self) -> bool:
        """Does the server's process run?"""
        return self._child is not None and self._child.process.poll() is None

    def _command(self, site: Path, backends: Path) -> list[str | Path]:
        return [
            site / "pytriton" / "tritonserver" / "bin" / "tritonserver",
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self._port}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
            "--log-verbose=0",
            f"--backend-config=python,shm-region-prefix-name={self._segments}",
        ]

    def _hold(self) -> None:
        """One server a folder: two would share segments, and each would clean the other's."""
        if self._lock is not None:
            return
        lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise TritonFailed(problem=f"another one runs in {self.folder}", log=self._tail()) from None
        self._lock = lock

    def _clean(self) -> None:
        """What a killed server left behind: segments of shared memory, and its backend folder."""
        for segment in _SHARED_MEMORY.glob(f"{self._segments}*"):
            segment.unlink(missing_ok=True)
        # A fresh one a launch: a stub that still runs cannot be overwritten ("Text file busy").
        for folder in self.folder.glob("backends-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            return f"{self.log}\n{self.log.read_text(errors='replace')[-1500:]}"
        return str(self.log)


class _Child:
    """The server and the thread that started it: the kernel kills it when that thread ends, so the thread waits.

    Its models' processes are not our children. They inherit one end of a pipe, `LIFELINE`, and die when ours closes.
    """

    def __init__(self, command: list[str | Path], log: Path, variables: dict[str, str]) -> None:
        theirs, self._lifeline = os.pipe()
        started = threading.Event()
        self.process: subprocess.Popen[bytes]
        self._error: BaseException | None = None

        def keep() -> None:
            try:
                environment = variables | {LIFELINE: str(theirs)}
                self.process = spawn(command, log, environment, nice=NICE, pass_fds=(theirs,))
            except OSError as error:
                self._error = error
                return
            finally:
                os.close(theirs)
                started.set()
            self.process.wait()

        threading.Thread(target=keep, name="triton-keeper", daemon=True).start()
        started.wait()
        if self._error is not None:
            os.close(self._lifeline)
            raise TritonFailed(problem=self._error, log=log) from self._error

    def stop(self) -> None:
        """The group too: a server that was killed may leave its stubs for a moment."""
        stop(self.process)
        os.close(self._lifeline)


def _answers(url: str) -> bool:
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    client = grpc.InferenceServerClient(url)
    try:
        return bool(client.is_server_ready(client_timeout=2))
    except InferenceServerException:
        return False
    finally:
        client.close()


def _lay_out(tritonserver: Path, backends: Path) -> None:
    """The wheel keeps the python backend's stub for each Python apart; Triton wants it beside the backend."""
    python = backends / "python"
    python.mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = tritonserver / "python_backend_stubs" / version / "triton_python_backend_stub"
    for path in (*(tritonserver / "backends" / "python").iterdir(), stub):
        if path.is_file():
            shutil.copy2(path, python / path.name)


def _variables(environment: Path, site: Path) -> dict[str, str]:
    """PATH leads the stub to its own Python (with numpy 1), LIBDIR to the libpython of the same patch release."""
    variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    libraries = [site / "nvidia_pytriton.libs", *filter(None, [_libpython()])]
    return variables | {
        "PATH": f"{environment / 'bin'}:{variables.get('PATH', '/usr/bin:/bin')}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "OMP_NUM_THREADS": "1",
    }


def _libpython() -> Path | None:
    """The folder of this Python's shared library."""
    name = f"lib{_python()}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    for place in (folder, folder / str(sysconfig.get_config_var("MULTIARCH") or "")):
        if (place / name).exists():
            return place
    return folder if ctypes.util.find_library(_python()) else None


def _python() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"

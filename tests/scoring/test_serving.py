"""The embedded Triton starts, answers under one address, and leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from backend.errors import TritonFailed
from backend.learning.encoders import EncoderSpec
from backend.processes import wait_until
from backend.scoring import repository, serving
from backend.scoring.triton import TritonEncoder
from tests.services.triton import put

PARENT = """
import sys, signal, threading
from pathlib import Path
import numpy as np
from backend.learning.encoders import load
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import TritonEncoder

folder, encoders, digest = sys.argv[1:]
server = EmbeddedTriton(Path(folder))
starter = threading.Thread(target=server.start)  # a thread that ends, while its Triton goes on
starter.start()
starter.join()
TritonEncoder(server.url, load(Path(encoders), digest)).encode(np.zeros((2, 32, 32, 3), np.uint8))
print(server.pid, flush=True)
signal.pause()
"""


def segments(server: serving.EmbeddedTriton) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{server._segments}*"))


def is_at_work(process: psutil.Process) -> bool:
    """A dead process that nobody has waited for yet does nothing any more."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_killed_parent_leaves_no_process_and_the_next_start_no_memory(tmp_path: Path, exact: EncoderSpec) -> None:
    server = serving.EmbeddedTriton(tmp_path)
    put(server, exact)
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(exact.path.parent.parent), exact.digest]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = next(int(line) for line in parent.stdout if line.strip().isdigit())
    instances = psutil.Process(pid).children()
    family = [psutil.Process(pid), *instances]
    for process in instances:
        process.suspend()  # as stuck as one that waits on a lock which the killed server held

    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert len(family) == 3  # Triton and two instances
    assert wait_until(lambda: not any(map(is_at_work, family)), timeout_s=60)
    server.start()
    server.stop()
    assert segments(server) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "models", "triton.log"]


def test_a_restart_keeps_the_address(triton: serving.EmbeddedTriton) -> None:
    url = triton.url
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGKILL)
    assert wait_until(lambda: not triton.is_alive(), timeout_s=60)

    triton.restart()

    assert triton.is_alive()
    assert triton.url == url


def test_it_listens_on_loopback_only_and_on_one_port(triton: serving.EmbeddedTriton) -> None:
    connections = psutil.Process(triton.pid).net_connections("inet")

    # IPv4 through an IPv6 socket is shown with a prefix; it is the same loopback address.
    listening = {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN
    }

    assert listening == {("127.0.0.1", int(triton.url.rpartition(":")[2]))}


def test_a_second_server_in_the_same_folder_is_refused_and_harms_nothing(triton: serving.EmbeddedTriton) -> None:
    second = serving.EmbeddedTriton(triton.folder)

    with pytest.raises(TritonFailed, match="another one runs"):
        second.start()

    second.stop()
    assert triton.is_alive()
    assert len(list(triton.folder.glob("backends-*"))) == 1


def test_stopping_twice_is_as_good_as_once(tmp_path: Path) -> None:
    server = serving.EmbeddedTriton(tmp_path)
    server.start()

    server.stop()
    server.stop()

    assert not server.is_alive()
    assert segments(server) == []


def test_many_writers_of_one_model_leave_one_whole_model(tmp_path: Path, exact: EncoderSpec) -> None:
    def write(_n: int) -> str:
        return repository.write_model(tmp_path, exact.name, exact.path, exact.digest, exact.dims, exact.precision)

    with ThreadPoolExecutor(8) as pool:
        (name,) = set(pool.map(write, range(16)))

    assert {path.name for path in tmp_path.iterdir()} == {".lock", name}
    assert (tmp_path / name / "1" / "model.onnx").read_bytes() == exact.path.read_bytes()


def test_a_model_of_an_older_program_is_written_anew(tmp_path: Path, exact: EncoderSpec) -> None:
    def write() -> str:
        return repository.write_model(tmp_path, exact.name, exact.path, exact.digest, exact.dims, exact.precision)

    program = tmp_path / write() / "1" / "model.py"
    current = program.read_text()
    program.write_text("raise SystemExit")

    write()

    assert program.read_text() == current


def test_importing_the_client_and_the_server_imports_no_heavy_library() -> None:
    heavy = "{'torch', 'openvino', 'tritonclient', 'grpc'}"
    code = f"import sys; import backend.scoring.triton, backend.scoring.serving; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_the_encoder_answers_after_a_restart_although_no_model_was_loaded(
    triton: serving.EmbeddedTriton, exact: EncoderSpec, images: NDArray[np.uint8]
) -> None:
    encoder = TritonEncoder(triton.url, exact)
    before = encoder.encode(images)

    triton.restart()
    after = encoder.encode(images)

    assert (after == before).all()
    encoder.close()

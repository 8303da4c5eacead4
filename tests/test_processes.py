"""Children that are started beside gRPC's threads."""

import subprocess
import sys
from pathlib import Path

_MANY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from backend import processes
import grpc

server = grpc.server(ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(30)
print([processes.spawn(["true"], Path(sys.argv[1])).wait() for _ in range(400)].count(0))
"""


def test_no_child_dies_of_grpc_before_its_program_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MANY, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)

    assert done.stdout.strip() == "400"

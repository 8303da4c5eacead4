"""The peers' side: their environments, their best threads, and how fast they are on the same images and network."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from backend import environments
from backend.processes import free_port
from benchmarks.scan.companion import Companion
from benchmarks.scan.stage import BUCKET, Network, Stage

TORCH = ("torch==2.13.0", "torchvision==0.28.0")
# Jina 3 imports pkg_resources, which setuptools 81 dropped.
ALAAS = (
    "alaas==0.2.1", "jina==3.23.3", "docarray==0.21.0", "pydantic<2", "numpy==1.26.*", "setuptools<81", *TORCH,
)  # fmt: skip
LOOPS = (
    "modAL-python==0.4.2.1", "alipy==1.2.5", "scikit-activeml==0.6.2", "requests", "pillow", "numpy==1.26.*",
    "setuptools<81", "Cython", "wheel", "joblib", "six", *TORCH,
)  # fmt: skip
LIBACT = "libact==0.1.6"
NAMES = ("modAL", "ALiPy", "libact", "scikit-activeml", "DeepAL")
CANDIDATES = ((1, 8), (2, 8), (2, 16))  # threads and minibatch that are tried first
TRIED = 160  # images
BUDGET = 100


@dataclass(frozen=True)
class Peer:
    """How a peer is started: its program and what it is told of threads and minibatch."""

    name: str
    threads: int
    batch_size: int


@dataclass(frozen=True)
class Queried:
    """A pool fetched for `fetch_s` (where that is a part of its own), and seconds of each query."""

    fetch_s: float
    query_s: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return self.fetch_s + sum(self.query_s)


def addresses(network: Network, keys: Sequence[str]) -> list[str]:
    """The public addresses of objects, through the proxy."""
    return [f"{network.endpoint}/{BUCKET}/{key}" for key in keys]


@contextmanager
def started(stage: Stage, peer: Peer) -> Iterator[Companion]:
    """The peer's process, with its model loaded and used once."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    }
    home = stage.folder / "peers"
    home.mkdir(exist_ok=True)
    environment |= {
        "HOME": str(home), "JINA_OPTOUT_TELEMETRY": "1", "NO_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": str(peer.threads), "MKL_NUM_THREADS": str(peer.threads),
    }  # fmt: skip
    here = Path(__file__).parent
    settings = [str(peer.threads), str(peer.batch_size)]
    if peer.name == "ALaaS":
        command = [alaas_python(), here / "peer_alaas.py", str(free_port()), *settings]
    else:
        command = [loops_python(), here / "peer_loops.py", peer.name, *settings]
    with Companion(command, stage.folder / f"{peer.name}.log", environment) as companion:
        companion.answer()
        if peer.name == "ALaaS":
            with stage.slow(0) as network:
                uris = addresses(network, stage.upload(peer.batch_size))
                companion.ask({"uris": uris, "budget": 2})
        yield companion


def query(companion: Companion, peer: Peer, uris: Sequence[str], rounds: int) -> Queried:
    """Least confidence on the whole pool, so many times."""
    question = {"uris": list(uris), "budget": min(BUDGET, len(uris)), "rounds": rounds}
    if peer.name != "ALaaS":
        answer = companion.ask(question)
        return Queried(answer["fetch_s"], tuple(answer["query_s"]))
    return Queried(0.0, tuple(companion.ask(question)["seconds"] for _ in range(rounds)))


def best(stage: Stage, name: str, delay_ms: float) -> Peer:
    """The peer with the threads and minibatch that are fastest on a small pool. Each is tried twice: the machine is
    shared, and what was tried first once looked three times slower than it was."""
    tried: dict[Peer, float] = {}
    for threads, batch_size in 2 * CANDIDATES:
        peer = Peer(name, threads, batch_size)
        keys = stage.upload(min(TRIED, stage.items))
        with started(stage, peer) as companion, stage.slow(delay_ms) as network:
            rate = len(keys) / query(companion, peer, addresses(network, keys), 1).seconds
        tried[peer] = max(rate, tried.get(peer, 0.0))
        print(f"  {name}, {threads} threads, minibatches of {batch_size}: {rate:.1f}/s", flush=True)
    return max(tried, key=lambda peer: tried[peer])


def alaas_python() -> Path:
    return environments.ensure("alaas", ALAAS, print) / "bin" / "python"


def loops_python() -> Path:
    """libact's newest release asks for a scikit-learn of 2018 and builds extensions that nothing here uses."""
    folder = environments.ensure("peers-loops", LOOPS, print)
    python, mark = folder / "bin" / "python", folder / ".libact"
    if not mark.exists():
        switches = {"LIBACT_BUILD_HINTSVM": "0", "LIBACT_BUILD_VARIANCE_REDUCTION": "0"}
        install = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", python]
        subprocess.run([*install, LIBACT], check=True, env=os.environ | switches)
        mark.touch()
    return python

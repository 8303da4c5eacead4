"""What every measure stands on: images in a real S3 store behind a delaying proxy, Triton, and our process."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from backend.pool.folders import Dataset, open_dataset
from backend.processes import die_with_parent
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from benchmarks.scan.companion import ROOT, Companion, Meter, below
from tests.services import seaweed

BUCKET, MIXED, CLOSED = "cifar", "mixed", "closed"
DIMS = 512  # of ResNet-18
MINIBATCH, STREAMS = 32, 2  # ScanConfig's and the model repository's defaults
READER: dict[str, Any] = {
    "name": "reader",
    "credentials": [{"accessKey": "reader", "secretKey": "reads-one-bucket"}],
    "actions": [f"{action}:{bucket}" for action in ("Read", "List") for bucket in (BUCKET, MIXED)],
}
# Peers ask plain http for public objects: no signature to make, none for the store to check.
ANONYMOUS = {"name": "anonymous", "actions": [f"Read:{BUCKET}"]}


@dataclass(frozen=True)
class Scanned:
    """One scan: items encoded, seconds, how many of them were stolen, and CPU seconds of `client`, `triton`, `model`
    (its processes) and `store`."""

    items: int
    seconds: float
    stolen_s: float
    cpu_s: dict[str, float]
    peak_bytes: int
    report: dict[str, Any]

    @property
    def rate(self) -> float:
        return self.items / self.seconds

    def rate_alone(self, cores: int) -> float:
        """Items a second, had the store and the proxy run on another machine: their CPU, and what was stolen, given
        back."""
        return self.items / (self.seconds - self.stolen_s - self.cpu_s["store"] / cores)

    @property
    def rate_had(self) -> float:
        """Items a second of those that the machine had: what was stolen given back."""
        return self.items / (self.seconds - self.stolen_s)


class Stage:
    """Services and files of one run of the benchmark, gone at its end."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.folder = Path(tempfile.mkdtemp(prefix="nextbatch-scan-"))
        self.home = self.folder / "home"
        self.data: Dataset = open_dataset(_given(), settings().cache / "datasets")
        self._closing = ExitStack()
        self._uploaded = 0
        self._projects = 0
        self.precision = ""  # what `auto` means on this machine, once a project was made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def files(self) -> list[Path]:
        """Every image of the data set, in one random order."""
        paths = [*self.data.train.paths, *self.data.test.paths]
        random.Random(0).shuffle(paths)
        return paths

    def weights(self, seed: int = 0) -> Path:
        """ResNet-18 as it is before training, from a fixed seed: as fast as a trained one, and nothing to download."""
        path = self.folder / f"resnet18-{seed}.safetensors"
        if not path.exists():
            import torch
            from safetensors.torch import save_file

            from backend.vision import torchvision

            torch.manual_seed(seed)
            save_file(torchvision("models").resnet18(weights=None).state_dict(), path)
        return path

    @cached_property
    def store(self) -> seaweed.S3Server:
        server = self._closing.enter_context(seaweed.running(READER, ANONYMOUS))
        for bucket in (BUCKET, MIXED, CLOSED):
            server.client().create_bucket(Bucket=bucket)
        return server

    @cached_property
    def store_pid(self) -> int:
        _ = self.store
        return next(child.pid for child in psutil.Process().children() if child.name() == "weed")

    @cached_property
    def triton(self) -> EmbeddedTriton:
        server = EmbeddedTriton(self.home / "triton", print)
        self.home.mkdir(exist_ok=True)
        server.folder.mkdir(exist_ok=True)
        server.start()
        self._closing.callback(server.stop)
        return server

    def key(self, path: Path) -> str:
        return str(path.relative_to(self.data.root))

    def upload(self, count: int) -> list[str]:
        """The first `count` images are in the bucket; their keys."""
        if count > len(self.files):
            raise SystemExit(
                f"{self.data.origin} has {len(self.files)} images, not {count}: set NEXTBATCH_DATA or --items"
            )
        missing = self.files[self._uploaded : count]
        if missing:
            print(f"putting {len(missing)} images into S3 …", flush=True)
            self.put(BUCKET, {self.key(path): path.read_bytes() for path in missing})
            self._uploaded = count
        return [self.key(path) for path in self.files[:count]]

    def put(self, bucket: str, objects: dict[str, bytes]) -> None:
        import obstore
        from obstore.store import S3Store

        server = self.store
        store = S3Store(
            bucket, endpoint=server.endpoint, region=server.region, access_key_id=server.access_key,
            secret_access_key=server.secret_key, client_options={"allow_http": True},
        )  # fmt: skip
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(lambda item: obstore.put(store, item[0], item[1]), objects.items()):
                pass

    @contextmanager
    def slow(self, delay_ms: float, hold: str = "", hold_s: float = 30.0) -> Iterator["Network"]:
        """The store behind a proxy of its own; requests that name `hold` are kept back for so long."""
        address = self.store.endpoint.removeprefix("http://")
        command = [sys.executable, "-m", "benchmarks.scan.delay_proxy", address, str(delay_ms)]
        command += ["--count", f"GET /{BUCKET}/"]
        command += ["--hold", hold, "--hold-s", str(hold_s)] if hold else []
        proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=die_with_parent())
        try:
            assert proxy.stdout is not None
            yield Network(f"http://127.0.0.1:{int(proxy.stdout.readline())}", proxy)
        finally:
            proxy.kill()
            proxy.wait()

    @contextmanager
    def ours(self, endpoint: str = "", *, is_cold: bool = True, as_reader: bool = False) -> Iterator["Ours"]:
        """A worker's process; cold: without a vector. `endpoint` is where it finds S3, as a user who may only read."""
        if is_cold:
            shutil.rmtree(self.home / "vectors", ignore_errors=True)
        environment = os.environ | {
            "NEXTBATCH_HOME": str(self.home),
            "NEXTBATCH_DATA_ROOT": str(self.folder),
            "TRITON_URL": self.triton.url,
            **(self.store.environment if endpoint else {}),
        }
        if as_reader:
            (keys,) = READER["credentials"]
            environment |= {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}
        command = [sys.executable, "-m", "benchmarks.scan.client"]
        with Companion(command, self.folder / "ours.log", environment, nice=10) as client:
            client.answer()
            yield Ours(self, client, endpoint)

    def vectors(self, digest: str) -> VectorStore:
        """What our process writes, to look at from here."""
        return VectorStore(self.home / "vectors", digest, DIMS)

    def next_name(self) -> str:
        self._projects += 1
        return f"scan{self._projects}"


@dataclass(frozen=True)
class Network:
    """The way to the store: the proxy's address and its process."""

    endpoint: str
    proxy: "subprocess.Popen[str]"

    def reads(self) -> int:
        """How many requests for an object of the bucket have passed."""
        self.proxy.send_signal(signal.SIGUSR1)
        assert self.proxy.stdout is not None
        return int(self.proxy.stdout.readline())


class Ours:
    """What can be asked of our process (client.py)."""

    def __init__(self, stage: Stage, companion: Companion, endpoint: str) -> None:
        self.stage = stage
        self.companion = companion
        self.endpoint = endpoint

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        return self.companion.ask({"do": do, **arguments})

    def make(
        self, items: int | None, precision: str = "auto", pool: dict[str, Any] | None = None, seed: int = 0
    ) -> int:
        """A new project of so many items, with the encoder of that seed loaded and warm. Its id."""
        pool = pool or {
            "source": "s3",
            "path": f"s3://{BUCKET}",
            "allow_buckets": [BUCKET],
            "s3_endpoint": self.endpoint,
        }
        config = {
            "name": self.stage.next_name(),
            "pool": pool | ({} if items is None else {"max_items": items}),
            "encoder": {"name": "resnet18", "weights": str(self.stage.weights(seed)), "precision": precision},
            "batch": {"size": 100},
        }
        self.stage.triton  # noqa: B018 started before the client asks for it
        project = int(self.ask("make", config=config, classes=list(self.stage.data.classes))["project"])
        self.warmed = self.ask("warm", project=project)
        if precision == "auto":
            self.stage.precision = self.warmed["precision"]
        return project

    def scan(self, project: int, network: Network | None = None, **limits: float) -> Scanned:
        """Encode what is new, with the CPU that each process took."""
        server = self.stage.triton.pid
        assert server is not None
        stubs = below(server)[1:]
        store = [network.proxy.pid, self.stage.store_pid] if network else []
        client = self.companion.process.pid
        with Meter(client=[client], triton=[server], model=stubs, store=store) as meter:
            answer = self.ask("scan", project=project, **limits)
        return Scanned(
            answer["encoded"],
            answer["seconds"],
            meter.stolen_s,
            meter.cpu_s | {"client": answer["cpu_s"]},
            answer["peak_bytes"],
            answer,
        )


def _given() -> Path | None:
    given = os.environ.get("NEXTBATCH_DATA")
    return Path(given) if given else None

"""Cold scans over storage latencies, and over minibatch sizes and kinds of storage."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backend.processes import die_with_parent
from benchmarks.record import row
from benchmarks.scan import peers
from benchmarks.scan.companion import ROOT
from benchmarks.scan.stage import Stage
from benchmarks.scan.throughput import DELAY_MS, cold_scan

LATENCIES_MS = (1.0, 5.0, 20.0, 100.0)
MINIBATCHES = (1, 2, 4, 8, 16, 32, 64)
THEIR_ITEMS, SWEEP_ITEMS = 1_000, 1_000  # a rate needs no more; ALaaS would take an hour otherwise
# The server logs every login: nobody reads its stderr.
FTP_SERVER = """
import sys, threading
from pathlib import Path
from tests.services import ftp
with ftp.running(Path(sys.argv[1])) as server:
    print(server.host_port, flush=True)
    threading.Event().wait()
"""


def latency(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Ours falls by how much from the best latency to the worst; medians by latency, ours and ALaaS's."""
    count = min(THEIR_ITEMS, stage.items)
    keys = stage.upload(count)
    peer = peers.best(stage, "ALaaS", DELAY_MS)
    ours: dict[float, list[float]] = {delay_ms: [] for delay_ms in LATENCIES_MS}
    theirs: dict[float, float] = {}
    for _ in range(repeat):
        for delay_ms in LATENCIES_MS:
            ours[delay_ms].append(cold_scan(stage, stage.items, delay_ms).rate)
    with peers.started(stage, peer) as companion:
        for delay_ms in LATENCIES_MS:
            with stage.slow(delay_ms) as network:
                theirs[delay_ms] = count / peers.query(companion, peer, peers.addresses(network, keys), 1).seconds
            print(f"  ALaaS at {delay_ms:g} ms: {theirs[delay_ms]:.1f}/s", flush=True)
    runs = list(zip(*ours.values(), strict=True))
    yield row(
        "latency_sweep", "how far ours falls from 1 ms of storage latency to 100 ms",
        [1 - rates[-1] / rates[0] for rates in runs], "share", target=0.10,
        images_per_s={f"{delay_ms:g}": [round(rate, 2) for rate in rates] for delay_ms, rates in ours.items()},
        alaas_per_s={f"{delay_ms:g}": round(rate, 2) for delay_ms, rate in theirs.items()},
        items=stage.items, alaas_items=count,
    )  # fmt: skip


def minibatches(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Figure 7 of the ALaaS paper: images a second by minibatch, from S3 at 5 ms, FTP and files of this machine."""
    count = min(SWEEP_ITEMS, stage.items)
    stage.upload(count)
    found: dict[str, dict[str, list[float]]] = {}
    for kind in ("s3", "ftp", "folder"):
        found[kind] = {str(size): [] for size in MINIBATCHES}
        for size in MINIBATCHES:
            for _ in range(repeat):
                found[kind][str(size)].append(_rate(stage, kind, count, size))
            print(f"  {kind}, minibatches of {size}: {found[kind][str(size)][-1]:.1f}/s", flush=True)
    yield row(
        "batch_sweep", "images a second from S3 in minibatches of 32", found["s3"]["32"], "images/s", better="higher",
        images_per_s={
            kind: {size: [round(rate, 2) for rate in rates] for size, rates in sizes.items()}
            for kind, sizes in found.items()
        },
        items=count,
    )  # fmt: skip


def _rate(stage: Stage, kind: str, items: int, minibatch: int) -> float:
    with ExitStack() as stack:
        if kind == "s3":
            network = stack.enter_context(stage.slow(DELAY_MS))
            ours = stack.enter_context(stage.ours(network.endpoint))
            return ours.scan(ours.make(items), network, minibatch=minibatch).rate
        folder = _sample(stage, items)
        pool: dict[str, Any] = {"source": "folder", "path": str(folder)}
        if kind == "ftp":
            host = stack.enter_context(_ftp(folder))
            pool = {"source": "ftp", "path": f"ftp://{host}/", "allow_hosts": [host]}
        ours = stack.enter_context(stage.ours())
        return ours.scan(ours.make(None, pool=pool), minibatch=minibatch).rate


def _sample(stage: Stage, items: int) -> Path:
    """The first images in a folder of their own."""
    folder = stage.folder / f"sample-{items}"
    for path in stage.files[:items] if not folder.exists() else ():
        target = folder / path.relative_to(stage.data.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


@contextmanager
def _ftp(folder: Path) -> Iterator[str]:
    """A real FTP server in a process of its own; host:port."""
    server = subprocess.Popen(
        [sys.executable, "-c", FTP_SERVER, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=ROOT, preexec_fn=die_with_parent(),
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()

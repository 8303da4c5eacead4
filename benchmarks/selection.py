"""Seconds that each strategy takes to pick 1,000 of a million items, and what else there is takes.

    python -m benchmarks.selection [--sizes 10000,100000,1000000] [--only NAME,NAME] [--no-peers]

Embeddings 512 × float16 in 200 blobs, 10 classes, probabilities of a linear head, 200 labels; each measurement is a
process of its own, with two threads, that maps the same files. Peers get the same arrays in their own environment,
and up to 120 s. Writes benchmarks/results/selection.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from uv import find_uv_bin

from backend import environments
from benchmarks.record import row, show, write
from strategies.registry import BUILT_IN

DIMENSIONS, CLASSES, LABELS, BUDGET = 512, 10, 200, 1_000
REPEATS, QUICK_S, PEER_S = 3, 5.0, 120.0
TARGETS = {
    **dict.fromkeys(("least_confidence", "margin", "entropy", "ratio"), 0.2),
    "bald": 2.0,
    "k_center_greedy": 10.0,
    "similar": 1.0,
    **dict.fromkeys(("margin_clusters", "class_balanced_margin", "tcm"), 3.0),
    **dict.fromkeys(("badge", "typiclust", "cluster_margin"), 90.0),
    **dict.fromkeys(("max_herding", "uherding", "prob_cover"), 30.0),
}
PEERS = ("modAL-python==0.4.2.1", "scikit-activeml==0.6.2", "small-text==1.4.1", "alipy==1.2.5", "numpy<2",
         "Cython<3.1", "setuptools<80", "six")  # fmt: skip
# Without what they ask for: libact 0.1.6 names no Cython to build with, ALaaS 0.2.1 brings a whole server.
BARE = ("libact==0.1.6", "alaas==0.2.1")


def make(folder: Path, n: int) -> None:
    """The pool's arrays as .npy files."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, DIMENSIONS)).astype(np.float32) * 1.5
    head = random.normal(size=(DIMENSIONS, CLASSES)).astype(np.float32) / np.sqrt(DIMENSIONS)
    embeddings = np.empty((n, DIMENSIONS), np.float16)
    probabilities = np.empty((n, CLASSES), np.float32)
    for start in range(0, n, 50_000):
        rows = slice(start, min(start + 50_000, n))
        block = centres[random.integers(0, 200, rows.stop - start)]
        block += random.standard_normal((rows.stop - start, DIMENSIONS), dtype=np.float32)
        embeddings[rows] = block
        logits = block @ head
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[rows] = chances / chances.sum(axis=1, keepdims=True)
    np.save(folder / "embeddings.npy", embeddings)
    samples = np.clip(probabilities + random.normal(0, 0.02, (10, *probabilities.shape)).astype(np.float32), 1e-6, 1)
    np.save(folder / "samples.npy", samples / samples.sum(axis=2, keepdims=True))
    np.save(folder / "probabilities.npy", probabilities)
    np.save(folder / "head.npy", head)


def measure(folder: Path, name: str) -> dict[str, Any]:
    """Seconds of one selection and the process's peak memory in bytes; runs in a process of its own."""
    import resource
    import time

    from strategies import Needs, Request, create, run

    loaded = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    n = len(loaded["probabilities"])
    strategy = create(name)
    asked = strategy.needs | strategy.uses
    request = Request(
        ids=np.arange(n), budget=BUDGET, seed=1, classes=CLASSES,
        embeddings=loaded["embeddings"], probabilities=np.array(loaded["probabilities"]),
        logits=np.log(np.maximum(loaded["probabilities"], 1e-12)) if Needs.LOGITS in asked else None,
        samples=np.array(loaded["samples"]) if Needs.SAMPLES in asked else None,
        head_weights=np.array(loaded["head"]), head_bias=np.zeros(CLASSES, np.float32),
        costs=np.linspace(1, 5, n), groups=np.arange(n) % 10, targets=np.array(loaded["embeddings"][:20]),
        votes=np.full((n, 1), -1) if Needs.VOTES in asked else None,
        labelled_embeddings=np.array(loaded["embeddings"][:LABELS]),
        labelled_classes=np.array(loaded["probabilities"][:LABELS]).argmax(axis=1),
    )  # fmt: skip
    run(create(name), Request(**{**vars(request), **_head(request, 2_000)}))  # imports and first-use costs
    started, worked = time.perf_counter(), time.process_time()
    selection = run(strategy, request)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {key: value for key, value in selection.diagnostics.items() if isinstance(value, int | float)}
    return {"seconds": seconds, "cpu_s": round(cpu_s, 3), "peak_bytes": peak, "diagnostics": facts}


def _head(request: Any, n: int) -> dict[str, Any]:
    """The first n candidates' arrays of a request."""
    n = min(n, len(request.ids))
    aligned = ("embeddings", "probabilities", "logits", "costs", "groups", "votes")
    cut = {name: array[:n] for name in aligned if (array := getattr(request, name)) is not None}
    samples = {} if request.samples is None else {"samples": request.samples[:, :n]}
    return {**cut, **samples, "ids": request.ids[:n], "budget": min(50, n)}


def alone(command: list[str | Path], limit_s: float) -> dict[str, Any]:
    """What a process of its own measured, or why it did not."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"problem": f"not done within {limit_s:.0f} s"}
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), options.measure[1])))
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    names = [name for name in options.only.split(",") if name] or [n for n in BUILT_IN if n != "active_lab"]
    peers: dict[str, dict[str, Any]] = {}
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            folder = Path(scratch) / str(size)
            folder.mkdir()
            make(folder, size)
            if not options.no_peers:
                peers[str(size)] = measure_peers(folder)
            found[size] = {name: _ours(folder, name) for name in names}
            for path in folder.iterdir():
                path.unlink()
    rows = []
    for name in names:
        for size in sizes:
            runs = found[size][name]
            good = [run["seconds"] for run in runs if "seconds" in run]
            id_ = name if size == 1_000_000 else f"{name}_{size}"
            target = TARGETS.get(name) if size == 1_000_000 else None
            beside = {
                peer: result["seconds"]
                for peer, result in peers.get(str(size), {}).items()
                if peer.endswith(f":{name}") and "seconds" in result
            }
            more = {key: value for key, value in runs[0].items() if key != "seconds"}
            seconds, what = good or [float("nan")], f"seconds to pick {BUDGET} of {size}"
            rows.append(row(id_, what, seconds, "s", target=target, peers=beside, **more))
            print(show(rows[-1]), beside or "", flush=True)
    write("selection", rows, peers=peers, peer_versions=[*PEERS, *BARE])


def _ours(folder: Path, name: str) -> list[dict[str, Any]]:
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.selection", "--measure", folder, name]
    runs = [alone(command, 600)]
    while len(runs) < REPEATS and runs[0].get("seconds", QUICK_S) < QUICK_S:
        runs.append(alone(command, 600))
    return runs


def measure_peers(folder: Path, budget: int = BUDGET, ending: str = "") -> dict[str, dict[str, Any]]:
    """Peer:strategy to what it measured, of those with this ending; a peer that cannot be installed is left out."""
    python = _peers_python()
    script = Path(__file__).parent / "selection_peers.py"
    listed = json.loads(subprocess.run([python, script], capture_output=True, text=True, check=True).stdout)
    results = {}
    for peer in filter(lambda name: name.endswith(ending), listed):
        results[peer] = alone([python, script, folder, peer, str(budget)], PEER_S)
        print(f"{peer:40} {folder.name:>8}  {results[peer]}", flush=True)
    return results


def _peers_python() -> Path:
    """The Python of the peers' environment, which is made the first time."""
    python = environments.ensure("peers-selection", PEERS, print) / "bin" / "python"
    mark = python.parent.parent / ".bare"
    if not mark.exists():
        command = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", python]
        plain = os.environ | {"LIBACT_BUILD_HINTSVM": "0", "LIBACT_BUILD_VARIANCE_REDUCTION": "0"}  # C parts, not asked
        subprocess.run([*command, *BARE], env=plain, check=True)
        mark.touch()
    return python


if __name__ == "__main__":
    main()

"""All arms and seeds of a backtest, side by side on the cores; what is done is kept, so a stopped one goes on."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from backend.artefacts import whole
from backend.backtest.bench import Bench
from backend.backtest.replay import Arm, Curve, replay
from backend.errors import BacktestMismatch

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Campaign:
    """Which arms to replay, with how many seeds, and after how many labels to look."""

    arms: tuple[Arm, ...]
    seeds: int
    schedule: tuple[int, ...]


def schedule(pool: int, labels: int, batch: int) -> tuple[int, ...]:
    """batch, 2 × batch, … up to `labels`, and no more than the pool has."""
    last = min(labels, pool)
    return (*range(min(batch, last), last, batch), last)


def run(
    bench: Bench, campaign: Campaign, out: Path, jobs: int, progress: Progress = lambda _done, _total, _what: None
) -> dict[str, list[Curve]]:
    """Curves of every arm by title, in the order of the seeds; those found in `out` are not computed again.

    One process a job, with one thread each: arms run side by side, not faster one by one. progress: replays done, of
    how many, and what was done last. Raises BacktestMismatch where `out` holds another bench's.
    """
    _claim(bench, campaign, out)
    wanted = {(arm.title, seed): (arm, seed) for arm in campaign.arms for seed in range(campaign.seeds)}
    paths = {key: out / "runs" / f"{_slug(*one)}.json" for key, one in wanted.items()}
    missing = [key for key, path in paths.items() if not path.exists()]
    done, total = len(wanted) - len(missing), len(wanted)
    progress(done, total, "found" if done else "")
    if missing:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_replay.__module__])  # torch is imported once, not once a job
        with ProcessPoolExecutor(min(jobs, len(missing)), context, _settle) as workers:
            running = {
                workers.submit(_replay, bench.folder, *wanted[key], campaign.schedule, paths[key]): key
                for key in sorted(missing, key=lambda key: key[1])  # whole sets of arms early: they can be compared
            }
            try:
                for future in as_completed(running):
                    future.result()
                    done += 1
                    title, seed = running[future]
                    progress(done, total, f"{title}, seed {seed}")
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                raise
    return {arm.title: [_read(paths[arm.title, seed]) for seed in range(campaign.seeds)] for arm in campaign.arms}


def accuracies(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """(seeds, steps)."""
    return np.array([curve.accuracy for curve in curves])


def _settle() -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are loaded later
    threadpool_limits(1)  # and numpy's, which the parent has loaded


def _replay(folder: Path, arm: Arm, seed: int, steps: tuple[int, ...], path: Path) -> None:
    curve = replay(Bench(folder), arm, seed, steps)
    with whole(path) as file:
        file.write(json.dumps({"arm": asdict(arm), "seed": seed, **asdict(curve)}).encode())


def _read(path: Path) -> Curve:
    kept = json.loads(path.read_text())
    return Curve(*(tuple(kept[name]) for name in ("labels", "accuracy", "seconds", "chosen")))


def _slug(arm: Arm, seed: int) -> str:
    """A file name that says what it is, and differs wherever the arm does."""
    text = json.dumps(asdict(arm), sort_keys=True)
    return f"{arm.strategy}-{hashlib.sha256(text.encode()).hexdigest()[:10]}-{seed:03d}"


def _claim(bench: Bench, campaign: Campaign, out: Path) -> None:
    """Runs of another bench or schedule are not mixed in."""
    facts = {"schedule": list(campaign.schedule), "bench": _digest(bench)}
    path = out / "plan.json"
    if path.exists() and json.loads(path.read_text()) != facts:
        raise BacktestMismatch(folder=out)
    with whole(path) as file:
        file.write(json.dumps(facts).encode())


def _digest(bench: Bench) -> str:
    digest = hashlib.sha256(json.dumps(bench.classes).encode())
    for array in (bench.labels, bench.test_labels, bench.pool[:64], bench.test[:64]):
        digest.update(f"{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

"""How near a cold scan is to the model alone, and what it costs beside the model."""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from backend import environments
from backend.pool.decode import decode
from benchmarks.record import row
from benchmarks.scan.companion import CORES, Companion, Meter
from benchmarks.scan.stage import MINIBATCH, STREAMS, Scanned, Stage

DELAY_MS = 5.0
BOUND_IMAGES = 256


class Bound:
    """The model alone: as many processes of one thread as Triton has, in its Python, arrays in memory."""

    def __init__(self, stage: Stage, model: str, precision: str) -> None:
        folder = stage.triton.repository / model / "1"
        images = stage.folder / "bound.npy"
        if not images.exists():
            np.save(images, np.stack([decode(path.read_bytes(), 224) for path in stage.files[:BOUND_IMAGES]]))
        python = environments.ensure("triton", environments.TRITON, print) / "bin" / "python"
        script = Path(__file__).parent / "bound.py"
        self._command = [python, script, folder / "engine.py", folder / "model.onnx", precision, images, str(MINIBATCH)]
        self._log = stage.folder / "bound.log"

    def measure(self, seconds: float) -> tuple[float, float]:
        """Images a second of all processes together, what was stolen given back, and CPU seconds an image."""
        with ExitStack() as stack:
            processes = [
                stack.enter_context(Companion(self._command, self._log, os.environ | {"OMP_NUM_THREADS": "1"}, nice=5))
                for _ in range(STREAMS)
            ]
            for process in processes:
                process.answer()
            with Meter() as meter:
                for process in processes:
                    process.tell(seconds)
                answers = [process.answer() for process in processes]
        rate = sum(answer["images"] / answer["seconds"] for answer in answers)
        had = 1 - meter.stolen_s / meter.seconds
        return rate / had, sum(answer["cpu_s"] for answer in answers) / sum(answer["images"] for answer in answers)


def cold_scan(
    stage: Stage, items: int, delay_ms: float = DELAY_MS, precision: str = "auto", **limits: float
) -> Scanned:
    """One cold scan of `items` images in S3, through the proxy."""
    stage.upload(items)
    with stage.slow(delay_ms) as network, stage.ours(network.endpoint) as ours:
        project = ours.make(items, precision)
        scanned = ours.scan(project, network, **limits)
        with closing(stage.vectors(ours.warmed["digest"])) as store:
            assert len(store) > 0.99 * items, "contents that are there twice are encoded once"
    stolen = f"{scanned.stolen_s / scanned.seconds:.0%} stolen"
    print(
        f"  cold scan of {items} at {delay_ms:g} ms: {scanned.rate:.1f}/s, {stolen}, CPU {_shown(scanned)}", flush=True
    )
    return scanned


def cold_vs_bound(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Scans and the model alone in turns, since machines drift; each scan is held against the two bounds around it."""
    model, precision = warmed(stage)
    bound, seconds = Bound(stage, model, precision), 20.0 if stage.items >= 2000 else 6.0
    bounds = [bound.measure(seconds)]
    scans: list[Scanned] = []
    for _ in range(repeat):
        scans.append(cold_scan(stage, stage.items))
        bounds.append(bound.measure(seconds))
        print(f"  the model alone: {bounds[-1][0]:.1f}/s, {1000 * bounds[-1][1]:.2f} CPU-ms an image", flush=True)
    around = [(before[0] + after[0]) / 2 for before, after in itertools.pairwise(bounds)]
    yield row(
        "cold_vs_bound",
        "cold scan over the model alone, the CPU of S3 and proxy given back",
        [scan.rate_alone(CORES) / rate for scan, rate in zip(scans, around, strict=True)],
        "ratio", target=0.95, better="higher",
        raw=[round(scan.rate_had / rate, 4) for scan, rate in zip(scans, around, strict=True)], raw_target=0.88,
        images_per_s=[round(scan.rate, 2) for scan in scans], bound_per_s=[round(rate, 2) for rate, _ in bounds],
        cpu_ms_per_item=[_per_item(scan) for scan in scans],
        bound_cpu_ms=[round(1000 * cpu, 3) for _, cpu in bounds], precision=precision, items=stage.items,
    )  # fmt: skip


def overhead(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """CPU of the client and of Triton's server in a cold scan, and of Triton's model processes with an empty model.

    What a model process does beside its model is far below the noise of the model itself (5 % of some 10 ms), so it
    is taken from scans with an encoder that only averages pixels; of those the model's part is taken off.
    """
    from benchmarks.scan.empty_model import empty_scan

    full = [cold_scan(stage, stage.items) for _ in range(repeat)]
    empty = [empty_scan(stage, stage.items) for _ in range(repeat)]
    own = [
        1000 * (scan.cpu_s["client"] + scan.cpu_s["triton"]) / scan.items + 1000 * beside_s
        for scan, (_, beside_s) in zip(full, empty, strict=True)
    ]
    yield row(
        "overhead_ms", "CPU of client and Triton beyond the model, an item", own, "ms", target=0.3,
        cpu_ms_per_item=[_per_item(scan) for scan in full],
        model_process_beyond_model_ms=[round(1000 * beside_s, 4) for _, beside_s in empty],
        empty_model=[{"images_per_s": round(scan.rate, 1), **_per_item(scan)} for scan, _ in empty], items=stage.items,
    )  # fmt: skip


def warmed(stage: Stage, precision: str = "auto") -> tuple[str, str]:
    """The model's name in Triton's repository, and the precision that `auto` means here."""
    stage.upload(min(64, stage.items))
    with stage.slow(0) as network, stage.ours(network.endpoint) as ours:
        ours.make(1, precision)
        return ours.warmed["model"], ours.warmed["precision"]


def _per_item(scan: Scanned) -> dict[str, float]:
    """CPU milliseconds an item, by process."""
    return {name: round(1000 * seconds / scan.items, 4) for name, seconds in scan.cpu_s.items()}


def _shown(scan: Scanned) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in _per_item(scan).items()) + " ms/item"

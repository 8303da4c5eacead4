"""What int8, and beside it bf16, change against fp32, and how fast each is: CIFAR-10, both image encoders.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.int8

The check of `nextbatch models quantise` over 5,000 labelled images, 300 others calibrate. ResNet-18 has random weights
of a fixed seed, nothing being downloaded: its speed is a trained one's, its check says little of one. Embeddings and
what the check found are kept below the cache; speeds are measured anew. Writes benchmarks/results/int8.json.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from backend.learning import fidelity
from backend.learning.encoders import EncoderSpec, Exported, export, runnable
from backend.learning.evaluate import Interval
from backend.learning.fidelity import Fidelity
from backend.learning.quantisation import quantise
from backend.pool.decode import decode
from backend.pool.folders import open_dataset
from backend.scoring.local import LocalEncoder
from backend.settings import settings
from backend.vision import torchvision
from benchmarks.record import row, show, write

NAMES = ("efficientnet-lite0", "resnet18")
CALIBRATION, CHECKED = 300, 5_000
TIMED, TURNS = 128, 5
SEED = 0
_FORMS: tuple[Exported, ...] = ("fp32", "bf16")


@dataclass(frozen=True, eq=False)
class Stock:
    """Images uint8 (n, 32, 32, 3) that calibrate, and that are checked with their class indices (n,)."""

    classes: tuple[str, ...]
    calibration: NDArray[np.uint8]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def main() -> None:
    out = settings().cache / "benchmarks" / "int8"
    out.mkdir(parents=True, exist_ok=True)
    stock, rows = draw(), list[dict[str, Any]]()
    for name in NAMES:
        forms = forms_of(name, out, stock)
        for form in list(forms)[1:]:
            rows += _rows(name, form, checked(name, form, forms, out, stock))
        for form, runs in speeds(forms, stock).items():
            rows.append(row(f"{name}_{form}_speed", f"{name}, {form}: one thread", runs, "images/s", better="higher"))
    for one in rows:
        print(show(one))
    write("int8", rows, items=CHECKED, calibration=CALIBRATION, pixels=32)


def draw() -> Stock:
    """Drawn from the training images by the seed."""
    data = open_dataset(Path(os.environ["NEXTBATCH_DATA"]).expanduser(), settings().cache / "datasets")
    chosen = np.random.default_rng(SEED).permutation(len(data.train.paths))[: CALIBRATION + CHECKED]
    images = np.stack([decode(data.train.paths[at].read_bytes(), 192) for at in chosen])
    labels = np.array([data.train.labels[at] for at in chosen], np.int64)
    return Stock(data.classes, images[:CALIBRATION], images[CALIBRATION:], labels[CALIBRATION:])


def forms_of(name: str, out: Path, stock: Stock) -> dict[str, EncoderSpec]:
    """The encoder in fp32 and what else this machine runs, by precision."""
    weights = None
    if name == "resnet18":
        weights = out / "resnet18.safetensors"
        if not weights.exists():
            torch.manual_seed(SEED)
            save_file(torchvision("models").resnet18(weights=None).state_dict(), weights)
    forms: dict[str, EncoderSpec] = {}
    for form in _FORMS:
        if runnable(form) == form:
            forms[form] = export(name, weights, out / "encoders", form)
    forms["int8"] = quantise(forms["fp32"], stock.calibration, out / name, torch.get_num_threads(), print)
    return forms


def checked(name: str, form: str, forms: Mapping[str, EncoderSpec], out: Path, stock: Stock) -> Fidelity:
    """The check of one form against fp32."""
    path = out / f"{forms[form].digest}.json"
    if not path.exists():
        exact, other = (embeddings(forms[one], out, stock) for one in ("fp32", form))
        found = fidelity.measure(exact, other, stock.labels, stock.classes, np.zeros(CHECKED, bool), SEED)
        path.write_text(json.dumps(asdict(found)))
        print(name, form, found, flush=True)
    facts = json.loads(path.read_text())
    return Fidelity(**{**facts, "interval": Interval(**facts["interval"])})


def embeddings(spec: EncoderSpec, out: Path, stock: Stock) -> NDArray[np.float16]:
    """As they are stored, (n, d)."""
    path = out / f"{spec.digest}.npy"
    if not path.exists():
        np.save(path, LocalEncoder(spec).encode(stock.images).astype(np.float16))
    found: NDArray[np.float16] = np.load(path)
    return found


def speeds(forms: Mapping[str, EncoderSpec], stock: Stock) -> dict[str, list[float]]:
    """Images a second of one thread, in turns, so that all meet the same machine."""
    engines = {form: LocalEncoder(spec, streams=1) for form, spec in forms.items()}
    runs: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(TURNS):
        for form, engine in engines.items():
            started = time.perf_counter()
            engine.encode(stock.images[:TIMED])
            runs[form].append(TIMED / (time.perf_counter() - started))
    return runs


def _rows(name: str, form: str, found: Fidelity) -> list[dict[str, Any]]:
    told, lost = f"{name}, {form} against fp32", found.exact_accuracy - found.accuracy
    interval = {"low": round(-found.interval.high, 5), "high": round(-found.interval.low, 5)}
    least = fidelity.LEAST_OVERLAP
    return [
        row(f"{name}_{form}_lost", f"{told}: accuracy lost", [lost], "share", target=fidelity.MOST_LOST,
            peers={"fp32": found.exact_accuracy, form: found.accuracy}, interval=interval),
        row(f"{name}_{form}_overlap", f"{told}: same 500", [found.overlap], "share", target=least, better="higher"),
        row(f"{name}_{form}_cosine", f"{told}: mean cosine", [found.mean_cosine], "cosine", better="higher",
            worst=round(found.least_cosine, 5)),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

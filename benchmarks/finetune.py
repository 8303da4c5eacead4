"""What fine-tuning the encoder is worth beside the frozen one, with the same labels: CIFAR-10, EfficientNet-lite0.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.finetune [--cells 3]

A cell is a number of labels, drawn at random by its seed, and a way to train. Both encoders get a logistic head fitted
to the same labels and are asked about the same 1,500 test images. Cells are kept, so that it can be stopped and begun
again; `--cells` does so many and writes what there is to benchmarks/results/finetune.json.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import stats

from backend.learning import training
from backend.learning.architectures import ARCHITECTURES, ImageArchitecture
from backend.learning.encoders import export
from backend.learning.evaluate import evaluate
from backend.learning.finetune import Examples, fine_tune
from backend.learning.finetune_plan import Plan, split
from backend.pool.decode import decode
from backend.pool.folders import open_dataset
from backend.scoring.local import LocalEncoder
from backend.settings import FineTuneSection, settings
from benchmarks.record import row, show, write

NAME = "efficientnet-lite0"
TEST = 1_500
FIRST_SEED = 100  # the default options were chosen with others


@dataclass(frozen=True)
class Way:
    """So many labels, how they are trained on, and how many seeds."""

    labels: int
    seeds: int
    stage: Literal["last", "all"] = "last"

    @property
    def name(self) -> str:
        return f"{self.labels}-{self.stage}"


WAYS = (Way(1_000, 3), Way(1_000, 3, "all"))
PIXELS, EPOCHS = 112, 6  # what two busy cores can do


@dataclass(frozen=True)
class Cell:
    """Accuracy and log loss on the test images: frozen, trained, and trained with a head judged by what it knows."""

    frozen: float
    frozen_loss: float
    trained: float
    trained_loss: float
    fooled: float
    fooled_loss: float
    best_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Stock:
    """Images uint8 (s, s, 3) and class indices, to train on and to be asked about."""

    classes: tuple[str, ...]
    images: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    test: list[NDArray[np.uint8]]
    test_labels: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000)
    arguments = parser.parse_args()
    out = settings().cache / "benchmarks" / "finetune"
    out.mkdir(parents=True, exist_ok=True)
    left = arguments.cells
    for way in sorted(WAYS, key=lambda way: way.stage == "all"):
        for seed in range(FIRST_SEED, FIRST_SEED + way.seeds):
            path = out / f"{way.name}-{seed}.json"
            if path.exists() or left == 0:
                continue
            cell = measure(way.labels, FineTuneSection(stage=way.stage, pixels=PIXELS, epochs=EPOCHS), seed)
            path.write_text(json.dumps(asdict(cell)))
            left -= 1
            print(way.name, seed, cell, flush=True)
    rows = [one for way in WAYS for one in _rows(way, out)]
    for one in rows:
        print(show(one), one.get("interval", ""))
    write("finetune", rows, test=TEST, threads=torch.get_num_threads(), pixels=PIXELS, epochs=EPOCHS)


def measure(labels: int, options: FineTuneSection, seed: int) -> Cell:
    """One comparison."""
    stock = draw(labels, seed)
    is_aside = split(stock.labels, options.aside, seed)
    architecture = ARCHITECTURES[NAME]
    assert isinstance(architecture, ImageArchitecture)
    plan = Plan(NAME, "", None, stock.classes, "", "", seed, torch.get_num_threads(), options)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        examples = Examples(stock.images, stock.labels, is_aside)
        found = fine_tune(plan, architecture, architecture.read(None), examples, folder, lambda *_: None)
        seconds = time.perf_counter() - started
        save_file(architecture.weights_of(found.network), folder / "weights.safetensors")
        encoded = [_encoded(one, stock, folder) for one in (None, folder / "weights.safetensors")]
    frozen, trained, fooled = (
        _asked(*encoded[of], stock, familiar) for of, familiar in ((0, None), (1, ~is_aside), (1, None))
    )
    return Cell(*frozen, *trained, *fooled, found.best_epoch, len(found.history) - 1, round(seconds, 1))


def draw(labels: int, seed: int) -> Stock:
    """Labels drawn at random from the training images; the test images are always the same."""
    data = open_dataset(Path(os.environ["NEXTBATCH_DATA"]), settings().cache / "datasets")
    known = np.random.default_rng(seed).permutation(len(data.train.labels))[:labels]
    asked = np.random.default_rng(0).permutation(len(data.test.labels))[:TEST]
    side = ARCHITECTURES[NAME].side

    def read(part: Any, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [decode(Path(part.paths[at]).read_bytes(), side) for at in rows]

    indices = np.array(data.train.labels, np.int64), np.array(data.test.labels, np.int64)
    return Stock(
        tuple(data.classes), read(data.train, known), indices[0][known], read(data.test, asked), indices[1][asked]
    )


def _asked(
    known: NDArray[np.float32], asked: NDArray[np.float32], stock: Stock, familiar: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """Accuracy and log loss of a head on these embeddings, as a round would fit it to the labels alone."""
    head = training.fit(known, stock.labels, stock.classes, familiar=familiar).head
    found = evaluate(head.predict(asked), stock.test_labels, stock.classes)
    return found.accuracy, found.log_loss


def _encoded(weights: Path | None, stock: Stock, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of what is known and of what is asked."""
    encoder = LocalEncoder(export(NAME, weights, folder / "encoders", "fp32"), streams=torch.get_num_threads())
    known, asked = (
        np.concatenate([encoder.encode(np.stack(images[at : at + 32])) for at in range(0, len(images), 32)])
        for images in (stock.images, stock.test)
    )
    return known, asked


def _rows(way: Way, out: Path) -> list[dict[str, Any]]:
    paths = [out / f"{way.name}-{seed}.json" for seed in range(FIRST_SEED, FIRST_SEED + way.seeds)]
    cells = [Cell(**json.loads(path.read_text())) for path in paths if path.exists()]
    if len(cells) < 2:
        return []
    what = f"from {way.labels} random labels, {'the last stage' if way.stage == 'last' else 'all'} trained"
    gains = [cell.trained - cell.frozen for cell in cells]
    losses = [cell.trained_loss - cell.frozen_loss for cell in cells]
    peers = {name: float(np.mean([getattr(cell, name) for cell in cells])) for name in ("frozen", "trained")}
    more = {name: float(np.mean([getattr(cell, name) for cell in cells])) for name in ("trained_loss", "fooled_loss")}
    seconds = [cell.seconds for cell in cells]
    return [
        row(f"finetune-{way.name}", f"accuracy gained {what}", gains, "share", better="higher",
            peers={name: round(value, 4) for name, value in peers.items()}, **_interval(gains)),
        row(f"finetune-{way.name}-log-loss", f"log loss changed {what}", losses, "nats",
            peers={name: round(value, 4) for name, value in more.items()}, **_interval(losses)),
        row(f"finetune-{way.name}-seconds", f"training {what}, on a machine that others used", seconds, "s"),
    ]  # fmt: skip


def _interval(values: list[float]) -> dict[str, Any]:
    """Mean and its 95 % interval over the seeds, Student's t."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    width = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": round(mean, 4), "interval": [round(mean - width, 4), round(mean + width, 4)]}


if __name__ == "__main__":
    main()

"""Pools for the evidence: a data set whole, a long tail of it, and near-duplicates, each kept as a bench."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance

from backend.backtest.bench import Bench
from backend.backtest.source import open_bench
from backend.learning.architectures import ARCHITECTURES
from backend.pool.folders import Dataset, made_once, read_folder
from backend.rounds.encoding import embeddings_of
from backend.rounds.items import encoder_for
from backend.settings import EncoderSection

TAIL = 100
ORIGINALS, COPIES = 10_000, 5
_SOURCE = "source.json"
_LAST_MAP = "efficientnet-lite0-last-map"

Say = Callable[[str], None]


def whole(data: Path, folder: Path, say: Say, encoder: EncoderSection | None = None) -> Bench:
    """All of the class folders at `data`; encoded and graphed once, while they and the encoder stay as they are."""
    section = encoder_for(read_folder(data).kind, encoder or EncoderSection())
    facts = {"data": str(data.absolute()), "encoder": embeddings_of(section).digest}
    if _is_of(folder, facts):
        return Bench(folder / "bench")
    bench = open_bench(str(data), folder, section, say)
    _claim(folder, facts)
    return bench


def last_map(data: Path, folder: Path, say: Say) -> Bench:
    """Images by the means of efficientnet-lite0's last map alone: a bar, and no encoder that a project can have."""
    usual = ARCHITECTURES["efficientnet-lite0"]
    plain = replace(usual, dims=1280, read=_read_last_map, identify=lambda: f"{usual.identify()} last map")
    ARCHITECTURES[_LAST_MAP] = plain
    named: dict[str, Any] = {"name": _LAST_MAP}
    return whole(data, folder, say, EncoderSection.model_construct(**named))


def long_tail(bench: Bench, folder: Path) -> Bench:
    """Class sizes that fall by a constant factor to a hundredth; the same rows each time. The test set stays."""
    facts = {"of": json.loads((bench.folder.parent / _SOURCE).read_text())}
    if _is_of(folder, facts):
        return Bench(folder / "bench")
    random = np.random.default_rng(0)
    classes = random.permutation(len(bench.classes))
    largest = np.bincount(bench.labels).max()
    kept = []
    for rank, of_class in enumerate(classes):
        rows = np.flatnonzero(bench.labels == of_class)
        count = max(1, round(largest * TAIL ** (-rank / (len(classes) - 1))))
        kept.append(random.permutation(rows)[:count])
    rows = np.sort(np.concatenate(kept))
    pool = (bench.pool[rows], bench.labels[rows])
    tests = (bench.test, bench.test_labels)
    tail = Bench.write(folder / "bench", bench.classes, pool, tests, bench.moments[rows])
    _claim(folder, facts)
    return tail


def near_duplicates(name: str, data: Path, folder: Path, cache: Path, say: Say) -> Bench:
    """10,000 images of the data set five times each: as it is, and four times slightly changed. The test set stays.

    All of them are files that the encoder sees. 50,000 originals would be five times the encoding, for no more than a
    larger pool.
    """
    dataset = read_folder(data)

    def make(where: Path) -> None:
        chosen = np.random.default_rng(0).permutation(len(dataset.train))[:ORIGINALS]
        for number in np.sort(chosen).tolist():
            _write_copies(dataset, number, where / "train")
        if dataset.test.paths:
            (where / "test").symlink_to(dataset.test.paths[0].parent.parent)

    return whole(made_once(cache / f"near-duplicates-{name}", make), folder, say)


def _read_last_map(weights: Path | None) -> torch.nn.Module:
    class Means(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            body: Any = self.network
            found: torch.Tensor = body.extract_features(x).mean((2, 3))
            return found

    usual: Any = ARCHITECTURES["efficientnet-lite0"].read(weights)
    return Means(usual.network).eval()


def _is_of(folder: Path, facts: dict[str, Any]) -> bool:
    source = folder / _SOURCE
    return source.exists() and json.loads(source.read_text()) == facts


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """The bench in `folder` is whole; runs of another one that lay there are not."""
    for runs in folder.glob("runs-*"):
        shutil.rmtree(runs)
    (folder / _SOURCE).write_text(json.dumps(facts))


def _write_copies(dataset: Dataset, number: int, root: Path) -> None:
    path = dataset.train.paths[number]
    place = root / dataset.classes[dataset.train.labels[number]]
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{path.stem}-0{path.suffix}").write_bytes(path.read_bytes())
    with Image.open(path) as image:
        original = image.convert("RGB")
    for copy in range(1, COPIES):
        changed = _changed(original, np.random.default_rng((number, copy)))
        (place / f"{path.stem}-{copy}.jpg").write_bytes(changed)


def _changed(image: Image.Image, random: np.random.Generator) -> bytes:
    """A JPEG of it, cropped by up to 14 %, a little brighter or darker, of more or less contrast and colour."""
    side = random.uniform(0.86, 1.0)
    left, top = random.uniform(0, 1 - side, 2)
    width, height = image.size
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    changed = image.resize(image.size, Image.Resampling.BILINEAR, box=box)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        changed = enhance(changed).enhance(random.uniform(0.85, 1.15))
    file = io.BytesIO()
    changed.save(file, "JPEG", quality=int(random.integers(60, 95)))
    return file.getvalue()

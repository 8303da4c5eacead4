"""Pools for the evidence: a data set whole, a long tail of it, and near-duplicates, each kept as a bench."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from backend.backtest.bench import Bench
from backend.backtest.source import open_bench
from backend.pool.folders import Dataset, made_once, read_folder
from backend.settings import EncoderSection

TAIL = 100
ORIGINALS, COPIES = 10_000, 5

Say = Callable[[str], None]


def whole(data: Path, folder: Path, say: Say) -> Bench:
    """All of the class folders or the archive at `data`; encoded and graphed once, while `data` stays as it is."""
    facts = {"data": str(data.absolute()), "changed_ns": data.stat().st_mtime_ns}
    source = folder / "source.json"
    if source.exists() and json.loads(source.read_text()) == facts:
        return Bench(folder / "bench")
    bench = open_bench(str(data), folder, EncoderSection(), say)
    source.write_text(json.dumps(facts))
    return bench


def long_tail(bench: Bench, folder: Path) -> Bench:
    """Class sizes that fall by a constant factor to a hundredth; the same rows each time. The test set stays."""
    if (folder / "graph.safetensors").exists():
        return Bench(folder)
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
    return Bench.write(folder, bench.classes, pool, (bench.test, bench.test_labels), bench.moments[rows])


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

"""How often drift is told where there is none, and found where it was planted: CIFAR-10, frozen EfficientNet-lite0.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.drift [--trials 200]

Each trial is what a round looks at: 2,500 known items, 200 new ones, and a stream of randomly drawn items with labels,
300 before and 200 new; a head fitted to 500 labels of the known kind predicts. All of its tests are believed or not
together, as in the product. Images are encoded once, below the cache. Writes benchmarks/results/drift.json.
"""

import argparse
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from backend.learning import training
from backend.learning.heads import Head
from backend.monitoring.arrivals import check_arrivals, check_inputs
from backend.monitoring.concept import Judged, check_errors
from backend.monitoring.suspicion import Suspicion, believed
from backend.pool import folders
from backend.pool.decode import decode
from backend.pool.facts import facts
from backend.rounds.encoding import embeddings_of, open_encoder
from backend.settings import EncoderSection, settings
from benchmarks.record import row, show, write

IMAGES, BLURRED = 6_000, 1_500
KNOWN, NEW, BEFORE, FITTED = 2_500, 200, 300, 500
NEW_CLASS, MORE_OF = 9, 3
SECTION = EncoderSection(name="efficientnet-lite0")


@dataclass(frozen=True, eq=False)
class Stock:
    """Images of CIFAR-10's test set: embeddings (n, d), classes (n,), plain numbers; the blurred ones apart."""

    names: tuple[str, ...]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    facts: list[dict[str, float]]
    blurred_x: NDArray[np.float32]
    blurred_facts: list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    stock = open_stock()
    rows = []
    for kind, what in KINDS.items():
        trials = arguments.trials if kind == "nothing" else max(20, arguments.trials // 4)
        told = [play(stock, kind, trial) for trial in range(trials)]
        by_code: dict[str, int] = {}
        for codes in told:
            for code in codes:
                by_code[code] = by_code.get(code, 0) + 1
        share = sum(map(bool, told)) / trials
        is_quiet = kind == "nothing"
        rows.append(
            row(
                f"drift-{kind.replace(' ', '-')}",
                f"share of rounds that tell something, planted: {what}",
                [share],
                "share",
                target=0.05 if is_quiet else 0.95,
                better="lower" if is_quiet else "higher",
                trials=trials,
                told={code: round(count / trials, 3) for code, count in sorted(by_code.items())},
            )
        )
        print(show(rows[-1]), rows[-1]["told"], flush=True)
    print(write("drift", rows, known=KNOWN, new=NEW, fitted=FITTED, before=BEFORE))


KINDS = {
    "nothing": "nothing",
    "new class 10": "a class that was not there, 10 % of the new items",
    "new class 20": "a class that was not there, 20 % of the new items",
    "blur": "Gaussian blur, radius 1, of half of the new items",
    "shift 30": "one class of ten is 30 % of the new items",
    "shift 50": "one class of ten is 50 % of the new items",
    "swap": "two labels of ten exchanged",
}


def play(stock: Stock, kind: str, seed: int) -> list[str]:
    """One round; the codes of what it tells."""
    random = np.random.default_rng(seed)
    is_new_class = kind.startswith("new class")
    order = random.permutation(np.flatnonzero(stock.y != NEW_CLASS) if is_new_class else len(stock.y))
    fitted, known, stream, rest = np.split(order, np.cumsum([FITTED, KNOWN, BEFORE + NEW]))
    head = fit(stock, fitted, seed)
    x, numbers = stock.x[rest[:NEW]].copy(), [stock.facts[at] for at in rest[:NEW]]
    if is_new_class:
        count = NEW * int(kind.split()[-1]) // 100
        chosen = random.choice(np.flatnonzero(stock.y == NEW_CLASS), count, replace=False)
        x[:count], numbers[:count] = stock.x[chosen], [stock.facts[at] for at in chosen]
    elif kind == "blur":
        chosen = random.choice(len(stock.blurred_x), NEW // 2, replace=False)
        x[: NEW // 2], numbers[: NEW // 2] = stock.blurred_x[chosen], [stock.blurred_facts[at] for at in chosen]
    elif kind.startswith("shift"):
        more = (int(kind.split()[-1]) - 10) / 90  # a tenth of the others is of it already
        chosen = rest[NEW:][stock.y[rest[NEW:]] == MORE_OF][: round(NEW * more)]
        x[: len(chosen)], numbers[: len(chosen)] = stock.x[chosen], [stock.facts[at] for at in chosen]
    suspected = look(head, stock, known, x, numbers)
    labels = stock.y[stream].copy()
    if kind == "swap":
        meant = np.arange(len(stock.names))
        meant[[3, 5]] = 5, 3
        labels[BEFORE:] = meant[labels[BEFORE:]]
    said = head.predict(stock.x[stream]).argmax(axis=1)
    judged = [Judged(head.classes[a], stock.names[b]) for a, b in zip(said, labels, strict=True)]
    suspected += check_errors(judged, NEW)
    return [finding.code for finding in believed(suspected)]


def look(
    head: Head, stock: Stock, known: NDArray[np.int64], new: NDArray[np.float32], numbers: list[dict[str, float]]
) -> list[Suspicion]:
    """What a round suspects of the items that came; contents are named by their place."""
    place = {f"k{at}": stock.x[at] for at in known} | {f"n{at:03}": row_ for at, row_ in enumerate(new)}
    found = check_arrivals(
        [f"k{at}" for at in known],
        [f"n{at:03}" for at in range(len(new))],
        lambda names: np.stack([place[name] for name in names]),
        head.predict,
        head.classes,
    )
    return found + check_inputs([stock.facts[at] for at in known[:200]], numbers)


def fit(stock: Stock, rows: NDArray[np.int64], seed: int) -> Head:
    seen = sorted(set(stock.y[rows].tolist()))
    labels = np.searchsorted(seen, stock.y[rows])
    return training.fit(stock.x[rows], labels, [stock.names[k] for k in seen], seed=seed).head


def open_stock() -> Stock:
    """Encoded the first time; 7,500 images."""
    given = os.environ.get("NEXTBATCH_DATA")
    cache = settings().cache
    data = (
        folders.open_dataset(Path(given).expanduser(), cache / "datasets")
        if given
        else folders.cifar10(cache / "datasets")
    )
    random = np.random.default_rng(0)
    chosen = random.permutation(len(data.test.paths))[: IMAGES + BLURRED]
    blobs = [png(data.test.paths[at], is_blurred=place >= IMAGES) for place, at in enumerate(chosen)]
    y = np.array([data.test.labels[at] for at in chosen], dtype=np.int64)
    digest = hashlib.sha256(b"".join(hashlib.sha256(blob).digest() for blob in blobs)).hexdigest()[:16]
    path = cache / "benchmarks" / "drift" / f"{embeddings_of(SECTION).digest[:16]}-{digest}.npy"
    if not path.exists():
        encoder = open_encoder(SECTION)
        arrays = np.stack([decode(blob, encoder.side) for blob in blobs])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, encoder.encode(arrays))
    x = np.load(path)
    numbers = [dict(facts(blob, "image")) for blob in blobs]
    return Stock(tuple(data.classes), x[:IMAGES], y[:IMAGES], numbers[:IMAGES], x[IMAGES:], numbers[IMAGES:])


def png(path: Path, *, is_blurred: bool) -> bytes:
    """All of one format, so that the number of bytes does not give the blurred ones away by their compression."""
    with Image.open(path) as opened, io.BytesIO() as file:
        image = opened.convert("RGB")
        (image.filter(ImageFilter.GaussianBlur(1)) if is_blurred else image).save(file, "PNG")
        return file.getvalue()


if __name__ == "__main__":
    main()

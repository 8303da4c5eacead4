"""What the unlabelled pool is worth to the head: CIFAR-10, frozen EfficientNet-lite0, random labels.

    NEXTBATCH_DATA=DIR python -m benchmarks.heads [--pool 50000] [--test 10000] [--seeds 5]

DIR holds ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``. Embeddings are kept in DIR/embeddings for the next run.
Writes benchmarks/results/heads.json.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import openvino
import simplejpeg
from numpy.typing import NDArray

from backend.learning.candidates import Unlabelled
from backend.learning.encoders import EncoderSpec, export
from backend.learning.neighbours import build
from backend.learning.training import fit
from benchmarks.record import row, write

COUNTS = (50, 100, 200, 500, 1_000)
TARGET_GAIN = {100: 0.079, 500: 0.015, 1_000: 0.007}  # published for a pool of 50,000; none for the others
_MINIBATCH = 32


def encode(spec: EncoderSpec, files: list[Path]) -> NDArray[np.float16]:
    """Embeddings of JPEG files, (n, dims) float16."""
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32" if spec.precision == "fp32" else "bf16",
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(spec.path, "CPU", hints))
    embeddings = np.empty((len(files), spec.dims), np.float16)

    def keep(request: openvino.InferRequest, start: int) -> None:
        rows = request.get_output_tensor().data
        embeddings[start : start + len(rows)] = rows

    queue.set_callback(keep)
    for start in range(0, len(files), _MINIBATCH):
        images = [simplejpeg.decode_jpeg(file.read_bytes()) for file in files[start : start + _MINIBATCH]]
        queue.start_async({0: np.stack(images)}, start)
    queue.wait_all()
    return embeddings


def load(data: Path, split: str, count: int) -> tuple[NDArray[np.float16], NDArray[np.int64], list[str]]:
    """Embeddings and class indices of ``count`` random images of a split, encoded once."""
    files = sorted((data / split).glob("*/*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:count]
    classes = sorted({file.parent.name for file in files})
    labels = np.array([classes.index(files[at].parent.name) for at in chosen])
    spec = export("efficientnet-lite0", None, data / "embeddings")
    kept = data / "embeddings" / f"{split}-{count}-{spec.digest[:16]}.npy"
    if not kept.exists():
        np.save(kept, encode(spec, [files[at] for at in chosen]))
    return np.load(kept), labels, classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    data = Path(os.environ["NEXTBATCH_DATA"])
    pool, labels, classes = load(data, "train", arguments.pool)
    test, truth, _ = load(data, "test", arguments.test)
    keys = np.array([f"{row:08d}".encode() for row in range(len(pool))])

    def read(wanted: NDArray[np.bytes_]) -> NDArray[np.float16]:
        return pool[wanted.astype(np.int64)]

    started = time.perf_counter()
    graph = build(keys, read)
    build_s = time.perf_counter() - started
    print(f"graph of {len(graph)} nodes: {build_s:.1f} s", flush=True)
    rows = []
    for count in COUNTS:
        runs: dict[str, list[float]] = {"logistic": [], "with pool": [], "seconds": []}
        kept = 0
        for seed in range(arguments.seeds):
            known = np.random.default_rng(seed).permutation(len(pool))[:count]
            lent = Unlabelled.draw(graph, keys[known], read, seed)
            plain = fit(pool[known], labels[known], classes, seed=seed)
            helped = fit(pool[known], labels[known], classes, lent, seed=seed)
            for name, report in (("logistic", plain), ("with pool", helped)):
                runs[name].append(float((report.head.predict(test).argmax(axis=1) == truth).mean()))
            runs["seconds"].append(helped.seconds)
            kept += helped.method == "propagation"
        gain = float(np.mean(runs["with pool"]) - np.mean(runs["logistic"]))
        rows.append(
            row(
                f"head-gain-{count}",
                f"accuracy gained from the pool at {count} random labels, mean of the seeds",
                [gain],
                "share",
                target=TARGET_GAIN.get(count),
                better="higher",
                peers={"logistic": round(float(np.mean(runs["logistic"])), 4)},
                seeds=[round(b - a, 4) for a, b in zip(runs["logistic"], runs["with pool"], strict=True)],
                propagation_kept=kept,
                seconds=round(float(np.median(runs["seconds"])), 2),
            )
        )
        print(
            f"{count:5d} labels: logistic {np.mean(runs['logistic']):.3f}, with pool {np.mean(runs['with pool']):.3f}"
            f" ({gain:+.3f}), propagation kept {kept}/{arguments.seeds}, {np.median(runs['seconds']):.1f} s",
            flush=True,
        )
    write("heads", rows, pool=arguments.pool, test=arguments.test, graph_seconds=round(build_s, 2))


if __name__ == "__main__":
    main()

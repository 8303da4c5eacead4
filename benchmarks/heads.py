"""What the unlabelled pool is worth to the head: CIFAR-10, frozen EfficientNet-lite0, random labels.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.heads [--seeds 5]

On the bench of `benchmarks.evidence`, which encodes the images once. Writes benchmarks/results/heads.json.
"""

import argparse
import os

import numpy as np

from backend.learning import training
from backend.learning.candidates import Unlabelled
from backend.settings import settings
from benchmarks.evidence import choose_pools
from benchmarks.record import row, write

COUNTS = (50, 100, 200, 300, 500, 1_000, 2_000)
TARGET_GAIN = {100: 0.079, 500: 0.015, 1_000: 0.007}  # published for a pool of 50,000; none for the others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    out = settings().cache / "benchmarks" / "evidence"
    pool = next(pool for pool in choose_pools(out, quick=True) if pool.name == "cifar-10-whole")
    bench = pool.open(out / pool.name)
    rows = []
    for count in COUNTS:
        runs: dict[str, list[float]] = {"logistic": [], "with pool": [], "seconds": []}
        kept = 0
        for seed in range(arguments.seeds):
            known = np.random.default_rng(seed).permutation(len(bench.labels))[:count]
            lent = Unlabelled.draw(bench.graph, bench.keys(known), bench.read, seed)
            plain = training.fit(bench.pool[known], bench.labels[known], bench.classes, seed=seed)
            helped = training.fit(bench.pool[known], bench.labels[known], bench.classes, lent, seed=seed)
            for name, report in (("logistic", plain), ("with pool", helped)):
                runs[name].append(float((report.head.predict(bench.test).argmax(axis=1) == bench.test_labels).mean()))
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
    write("heads", rows, pool=len(bench.labels), test=len(bench.test_labels))


if __name__ == "__main__":
    main()

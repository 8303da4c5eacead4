"""The head with a hidden layer beside the logistic one, with and without tuning: CIFAR-10, frozen EfficientNet-lite0.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.perceptron [--seeds 5] [--speed]

On the bench of `benchmarks.evidence`, which encodes the images once; labels drawn at random, all of the test images.
Heads look at labels alone. Writes benchmarks/results/perceptron.json; with --speed only the time of a fit, for a
machine that does nothing else, to head_speed.json.
"""

import argparse
import os
from typing import Any

import numpy as np
import torch
from scipy import stats

from backend.backtest.bench import Bench
from backend.learning import training
from backend.learning.calibration import log_loss
from backend.learning.candidates import Method
from backend.learning.training import METHODS, Tuned
from backend.learning.tuning import tune
from backend.settings import HeadKind, settings
from benchmarks.evidence import choose_pools
from benchmarks.record import row, show, write

COUNTS = (100, 500, 2_000, 5_000)
TUNED = 500
TRIALS = 10
TARGET_S = 2.0  # of a logistic head on 5,000 x 1,280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    out = settings().cache / "benchmarks" / "evidence"
    pool = next(pool for pool in choose_pools(out, quick=True) if pool.name == "cifar-10-whole")
    bench = pool.open(out / pool.name)
    if arguments.speed:
        speed(bench)
        return
    rows = []

    def keep(rows: list[dict[str, Any]]) -> None:
        sizes = {"pool": len(bench.labels), "test": len(bench.test_labels), "features": int(bench.pool.shape[1])}
        write("perceptron", rows, **sizes)

    def asked(labels: int, seed: int, kind: HeadKind, tuned: Tuned = training.UNTUNED) -> tuple[float, float, float]:
        """Accuracy, log loss, seconds."""
        known = np.random.default_rng(seed).permutation(len(bench.labels))[:labels]
        methods = frozenset({"logistic"}) if kind == "linear" else METHODS[kind]
        report = training.fit(
            bench.pool[known], bench.labels[known], bench.classes, seed=seed, methods=methods, tuned=tuned
        )
        logits = report.head.logits(bench.test)
        truth = np.asarray(bench.test_labels)
        return float((logits.argmax(axis=1) == truth).mean()), log_loss(logits, truth), report.seconds

    for labels in COUNTS:
        runs = {
            kind: np.array([asked(labels, seed, kind) for seed in range(arguments.seeds)]) for kind in ("linear", "mlp")
        }
        gains, losses = (list(runs["mlp"][:, at] - runs["linear"][:, at]) for at in (0, 1))
        peers = {kind: round(float(found[:, 0].mean()), 4) for kind, found in runs.items()}
        seconds = {f"{kind}_s": round(float(np.median(found[:, 2])), 2) for kind, found in runs.items()}
        what = f"a hidden layer against the logistic head at {labels} random labels"
        rows += [
            row(f"mlp-{labels}", f"accuracy gained by {what}", gains, "share", better="higher", peers=peers,
                **seconds, **_interval(gains)),
            row(f"mlp-{labels}-log-loss", f"log loss changed by {what}", losses, "nats", **_interval(losses)),
        ]  # fmt: skip
        print(show(rows[-2]), rows[-2]["interval"], peers, seconds, flush=True)
        keep(rows)
    for kind in ("linear", "mlp"):
        rows.append(_tuned_row(kind, arguments.seeds, bench, asked))
        print(show(rows[-1]), rows[-1]["interval"], flush=True)
        keep(rows)


def speed(bench: Bench) -> None:
    """A fit of each kind on 5,000 x 1,280, cross-validation included; five times."""
    x, y = np.array(bench.pool[:5_000, :1_280]), np.array(bench.labels[:5_000])
    rows = []
    for name, methods, target in (
        ("logistic", frozenset[Method]({"logistic"}), TARGET_S),
        ("mlp", METHODS["mlp"], None),
    ):
        runs = [training.fit(x, y, bench.classes, seed=seed, methods=methods).seconds for seed in range(5)]
        rows.append(row(f"head-fit-{name}", f"fitting a {name} head to 5,000 x 1,280", runs, "s", target=target))
        print(show(rows[-1]), flush=True)
        write("head_speed", rows, threads=torch.get_num_threads())


def _tuned_row(kind: HeadKind, seeds: int, bench: Bench, asked: Any) -> dict[str, Any]:
    """What the trials gain."""
    changes = []
    for seed in range(seeds):
        known = np.random.default_rng(seed).permutation(len(bench.labels))[:TUNED]
        found = tune(
            bench.pool[known], bench.labels[known], bench.classes, kind, budget_s=600, trials=TRIALS, seed=seed
        )
        after, before = asked(TUNED, seed, kind, found.tuned), asked(TUNED, seed, kind)
        changes.append([after[at] - before[at] for at in (0, 1)])
    gains, losses = ([one[at] for one in changes] for at in (0, 1))
    what = f"accuracy gained by tuning the {kind} head, {TRIALS} trials at {TUNED} labels"
    return row(f"tuned-{kind}", what, gains, "share", better="higher", log_loss=_interval(losses), **_interval(gains))


def _interval(values: list[float]) -> dict[str, Any]:
    """Mean and its 95 % interval over the seeds, Student's t."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    width = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": round(mean, 4), "interval": [round(mean - width, 4), round(mean + width, 4)]}


if __name__ == "__main__":
    main()

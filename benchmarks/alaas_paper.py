"""The experiment of the ALaaS paper, its protocol kept: CIFAR-10, 10,000 labels, 10,000 more of the other 40,000.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.alaas_paper [--seeds 3] [--jobs 2] [--no-peers] [--resnet] [--out DIR]

Its one-round table (least confidence: latency, throughput, accuracy), and its Figures 5 and 6: top-1 and top-5
accuracy against the budget, and accuracy beside throughput, of LC, MC, RC, ES, KCG, k-means, core-set and DBAL, between
random and all labels. The model is our head on the frozen encoder; --resnet fine-tunes a ResNet-18 instead, where CUDA
is present.
Huang, Zhang, Li, Lau & You, *Active-Learning-as-a-Service*, 2022, 2207.09109. A stopped run goes on below --out. Writes
benchmarks/results/alaas_paper.json and docs/images/alaas-*.png.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import strategies
from backend.artefacts import whole
from backend.backtest.bench import Bench
from backend.learning import training
from backend.learning.heads import Head
from backend.rounds.inputs import model_inputs
from backend.settings import settings
from benchmarks import alaas_cold, alaas_pictures
from benchmarks.evidence import choose_pools
from benchmarks.record import row, show, write

INITIAL, SCANNED, MOST = 10_000, 40_000, 10_000
BUDGETS = (2_500, 5_000, MOST)
NAMES = {  # the paper's name to ours
    "random": "random", "LC": "least_confidence", "MC": "margin", "RC": "ratio", "ES": "entropy",
    "KCG": "k_center_greedy", "k-means": "k_means", "core-set": "k_center_greedy", "DBAL": "dbal",
}  # fmt: skip
_WITHOUT_LABELLED = ("KCG",)  # k-center of the pool alone; core-set also covers from what is labelled

Task = tuple[int, str, int]


def answer(folder: Path, task: Task, place: Path) -> dict[str, float]:
    """What a strategy's pick of the 40,000 leads to, and how long it took; all labels if it picks nothing."""
    seed, name, budget = task
    bench = Bench(folder)
    order = np.random.default_rng(seed).permutation(len(bench.labels))
    known, rest = np.sort(order[:INITIAL]), np.sort(order[INITIAL : INITIAL + SCANNED])
    if name == "all":
        return _tested(bench, np.sort(np.concatenate([known, rest])), place.with_suffix(".head"))
    if not budget:
        return _tested(bench, known, place.with_suffix(".head"))
    head = Head.load(place.parent / f"{_slug((seed, 'initial', 0))}.head")
    strategy = strategies.create(NAMES[name])
    pool = np.asarray(bench.pool[rest])
    started = time.perf_counter()
    asked = strategy.needs | strategy.uses
    labelled = known[:0] if name in _WITHOUT_LABELLED else known
    inputs = model_inputs(asked, head, 0.0, pool, bench.pool[labelled], bench.labels[labelled], seed)
    predicted_s = time.perf_counter() - started
    picks = strategies.run(strategy, strategies.Request(ids=np.arange(len(rest)), budget=budget, seed=seed, **inputs))
    seconds = {"predict_s": predicted_s, "select_s": time.perf_counter() - started - predicted_s}
    return seconds | _tested(bench, np.concatenate([known, rest[picks.ids]]), None)


def _tested(bench: Bench, known: NDArray[np.int64], keep: Path | None) -> dict[str, float]:
    started = time.perf_counter()
    head = training.fit(bench.pool[known], bench.labels[known], bench.classes).head
    fit_s = time.perf_counter() - started
    if keep:
        head.save(keep)
    best = np.argsort(-head.predict(bench.test), axis=1, kind="stable")[:, :5]
    hits = best == bench.test_labels[:, None]
    return {"top1": float(hits[:, 0].mean()), "top5": float(hits.any(axis=1).mean()), "fit_s": fit_s}


def play(folder: Path, tasks: Iterable[Task], out: Path, jobs: int) -> dict[Task, dict[str, float]]:
    """The answers of all tasks, those found in `out` not asked for again."""
    places = {task: out / f"{_slug(task)}.json" for task in tasks}
    missing = [task for task, place in places.items() if not place.exists()]
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(missing)), context) as workers:
            running = {workers.submit(_keep, folder, task, places[task]): task for task in missing}
            for done, future in enumerate(as_completed(running), 1):
                future.result()
                print(f"{done} of {len(missing)}: {running[future]}", file=sys.stderr, flush=True)
    return {task: json.loads(place.read_text()) for task, place in places.items()}


def _keep(folder: Path, task: Task, place: Path) -> None:
    found = answer(folder, task, place)
    with whole(place) as file:
        file.write(json.dumps(found).encode())


def _slug(task: Task) -> str:
    seed, name, budget = task
    return f"{name}-{budget}-{seed}"


def rows_of(found: dict[Task, dict[str, float]], cold: dict[str, Any], seeds: range) -> list[dict[str, Any]]:
    """The one-round table: least confidence, 10,000 of 40,000."""

    def of(name: str, budget: int, what: str) -> list[float]:
        return [found[seed, name, budget][what] for seed in seeds]

    chosen = np.array(of("LC", MOST, "predict_s")) + of("LC", MOST, "select_s")
    beside = {name: SCANNED / one["images_s"] + one["select_s"] for name, one in cold["peers"].items()}
    latency = [SCANNED / cold["images_s"] + seconds for seconds in chosen]
    peers = {name: round(seconds, 1) for name, seconds in beside.items()}
    rates = {name: round(SCANNED / seconds, 1) for name, seconds in beside.items()}
    higher: dict[str, Any] = {"better": "higher"}
    return [
        row("alaas_latency", "s from 40,000 files to 10,000 picks, nothing stored", latency, "s", peers=peers),
        row(
            "alaas_throughput", "the same, images/s", [SCANNED / s for s in latency], "images/s", peers=rates, **higher
        ),
        row("alaas_latency_again", "s from stored embeddings and a new head to 10,000 picks", chosen.tolist(), "s"),
        row("alaas_top1", "accuracy with the 20,000 labels", of("LC", MOST, "top1"), "share", **higher),
        row("alaas_top5", "top-5 accuracy with the 20,000 labels", of("LC", MOST, "top5"), "share", **higher),
        row("alaas_top1_random", "accuracy with 20,000 random labels", of("random", MOST, "top1"), "share", **higher),
        row("alaas_top1_before", "accuracy with the first 10,000", of("initial", 0, "top1"), "share", **higher),
        row("alaas_top1_all", "accuracy with all 50,000", of("all", 0, "top1"), "share", **higher),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--resnet", action="store_true", help="fine-tune a ResNet-18 as the paper does; needs CUDA")
    parser.add_argument("--out", type=Path, default=settings().cache / "benchmarks" / "alaas-paper")
    options = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    if options.resnet:
        from benchmarks.alaas_resnet import reproduce

        reproduce(options.out / "resnet18", options.seeds)
        return
    evidence = settings().cache / "benchmarks" / "evidence"
    pool = choose_pools(evidence, quick=True)[0]
    bench = pool.open(evidence / pool.name)
    seeds = range(options.seeds)
    first = [(seed, name, 0) for seed in seeds for name in ("initial", "all")]
    second = [(seed, name, budget) for seed in seeds for budget in BUDGETS for name in NAMES]
    found = play(bench.folder, first, options.out, options.jobs)
    found |= play(bench.folder, second, options.out, options.jobs)
    cold = alaas_cold.measure(options.out, MOST, has_peers=not options.no_peers)
    rows = rows_of(found, cold, seeds)
    for one in rows:
        print(show(one), one["peers"] or "")
    curves = {
        name: {b: [found[s, name if b else "initial", b] for s in seeds] for b in (0, *BUDGETS)} for name in NAMES
    }
    full = [found[seed, "all", 0] for seed in seeds]
    alaas_pictures.budgets(Path("docs/images/alaas-accuracy.png"), curves, full)
    alaas_pictures.throughput(Path("docs/images/alaas-throughput.png"), curves, MOST, SCANNED, cold["images_s"])
    figures = {name: {str(b): looks for b, looks in by_budget.items()} for name, by_budget in curves.items()}
    write("alaas_paper", rows, cold=cold, figures=figures, all_labels=full, budgets=list(BUDGETS))


if __name__ == "__main__":
    main()

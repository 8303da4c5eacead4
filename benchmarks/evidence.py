"""What active learning gains with this code: labels needed to reach what random labels reach.

    NEXTBATCH_DATA=DIR python -m benchmarks.evidence [--seeds 10] [--labels 2000] [--out DIR] [--jobs 2]

DIR (or archive) holds train/ and test/ class folders. Pools: all of it, and a long tail (100:1) of it. Arms: random and
auto, each with the service's head and with a plain logistic one. A stopped run goes on below --out. Writes
benchmarks/results/evidence.json and docs/images/evidence-POOL.png.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.backtest import report
from backend.backtest.analysis import Verdict, area, interval, judge, labels_to
from backend.backtest.bench import Bench
from backend.backtest.campaign import Campaign, accuracies, run
from backend.backtest.replay import Arm, Curve
from backend.backtest.source import open_bench
from backend.settings import EncoderSection, settings
from benchmarks.record import row, show, write

ARMS = (
    Arm("random", head="logistic", name="random, logistic head"),
    Arm("random", name="random, service head"),
    Arm("auto", head="logistic", name="auto, logistic head"),
    Arm("auto", name="auto, service head"),
)
PLAIN, RANDOM, AUTO_PLAIN, AUTO = (arm.title for arm in ARMS)
TARGETS = {
    "service_1000": 350, "service_2000": 600, "selection_1000": 700, "selection_2000": 1_250,
    "cold_start_100": 45, "long_tail_1000": 240, "long_tail_2000": 340,
}  # fmt: skip
TAIL = 100


def steps(labels: int) -> tuple[int, ...]:
    """Close looks where the curve is steep: 20, 40 … 100, 150, 200, 300 … `labels`."""
    wanted = [*range(20, 101, 20), 150, *range(200, labels, 100), labels]
    return tuple(sorted({step for step in wanted if step <= labels}))


def long_tail(bench: Bench, folder: Path) -> Bench:
    """Class sizes that fall by a constant factor to a hundredth; the same rows each time. The test set stays."""
    if (folder / "graph.safetensors").exists():
        return Bench(folder)
    random = np.random.default_rng(0)
    classes = random.permutation(len(bench.classes))
    kept = []
    for rank, of_class in enumerate(classes):
        rows = np.flatnonzero(bench.labels == of_class)
        count = max(1, round(len(rows) * TAIL ** (-rank / (len(classes) - 1))))
        kept.append(random.permutation(rows)[:count])
    rows = np.sort(np.concatenate(kept))
    pool = (bench.pool[rows], bench.labels[rows])
    return Bench.write(folder, bench.classes, pool, (bench.test, bench.test_labels))


def needed(curves: dict[str, list[Curve]], arm: str, baseline: str, at: int) -> list[float]:
    """Labels with which `arm` reaches what `baseline` reaches with `at`: of the mean curve, then of 200 resamples."""
    labels = curves[arm][0].labels
    if at not in labels:
        return []
    ours, theirs = accuracies(curves[arm]), accuracies(curves[baseline])
    place = labels.index(at)
    random = np.random.default_rng(0)
    draws = [np.arange(len(ours)), *random.integers(0, len(ours), (200, len(ours)))]
    found = [labels_to(labels, ours[draw].mean(axis=0), float(theirs[draw].mean(axis=0)[place])) for draw in draws]
    return [float("inf") if value is None else value for value in found]


def saving(id_: str, curves: dict[str, list[Curve]], arm: str, baseline: str, at: int) -> list[dict[str, Any]]:
    found = needed(curves, arm, baseline, at)
    if not found:
        return []
    low, high = np.quantile(found[1:], (0.025, 0.975))
    what = f"labels of '{arm}' to reach '{baseline}' at {at}"
    more: dict[str, Any] = {"interval": [round(float(low)), round(float(high))], "seeds": len(curves[arm])}
    return [row(id_, what, found[:1], "labels", target=TARGETS.get(id_), **more)]


def never_worse(pools: dict[str, dict[str, list[Curve]]]) -> dict[str, Any]:
    lowest: list[tuple[float, str]] = []
    for pool, curves in pools.items():
        for auto, baseline in ((AUTO, RANDOM), (AUTO_PLAIN, PLAIN)):
            labels = curves[auto][0].labels
            gains: NDArray[np.float64] = area(labels, accuracies(curves[auto])) - area(
                labels, accuracies(curves[baseline])
            )
            lowest.append((interval(gains)[0], f"{pool}: {auto}"))
    bound, where = min(lowest)
    what = "AUBC of auto minus random's, lowest 95 % lower bound over pools and heads"
    return row("never_worse", what, [bound], "share", target=-0.003, better="higher", where=where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--labels", type=int, default=2_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=settings().cache / "benchmarks" / "evidence")
    options = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    everything = open_bench(os.environ["NEXTBATCH_DATA"], options.out, EncoderSection(), print)
    benches = {"balanced": everything, "long-tail": long_tail(everything, options.out / "long-tail")}
    found: dict[str, dict[str, list[Curve]]] = {}
    for pool, bench in benches.items():
        campaign = Campaign(ARMS, options.seeds, steps(options.labels))

        def tell(done: int, total: int, last: str, pool: str = pool) -> None:
            print(f"{pool}: {done} of {total} replays{': ' + last if last else ''}", file=sys.stderr, flush=True)

        found[pool] = run(bench, campaign, options.out / f"runs-{pool}-{options.labels}", options.jobs, tell)
        curves = {name: accuracies(runs) for name, runs in found[pool].items()}
        seconds = {name: np.concatenate([one.seconds for one in runs]) for name, runs in found[pool].items()}
        verdicts: list[Verdict] = judge(campaign.schedule, curves, seconds, PLAIN)
        print(f"\n{pool}\n{report.table(verdicts, PLAIN)}\n", flush=True)
        report.draw(Path("docs/images") / f"evidence-{pool}.png", found[pool], verdicts)
    rows = [never_worse(found)]
    for at in (1_000, 2_000):
        rows += saving(f"service_{at}", found["balanced"], AUTO, PLAIN, at)
        rows += saving(f"selection_{at}", found["balanced"], AUTO_PLAIN, PLAIN, at)
        rows += saving(f"long_tail_{at}", found["long-tail"], AUTO_PLAIN, PLAIN, at)
    rows += saving("cold_start_100", found["balanced"], AUTO_PLAIN, PLAIN, 100)
    for one in rows:
        print(show(one))
    write("evidence", rows, data="CIFAR-10 as JPEG, frozen efficientnet-lite0", schedule=list(steps(options.labels)))


if __name__ == "__main__":
    main()

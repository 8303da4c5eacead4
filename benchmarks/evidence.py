"""What active learning gains with this code: labels needed to reach what random labels reach, on four data sets.

    NEXTBATCH_DATA=CIFAR python -m benchmarks.evidence [--quick] [--seeds 10] [--only POOL,POOL] [--dry] [--out DIR]

CIFAR is a folder or archive of CIFAR-10 as train/ and test/ class folders (by default torchvision fetches it); the
other data sets come from package registries (benchmarks/data.py). The policy was frozen on CIFAR-10. A stopped run
goes on below --out. Writes benchmarks/results/evidence.json, docs/evidence-tables.md and docs/images/evidence*.png.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backend.backtest import manual
from backend.backtest.bench import Bench
from backend.backtest.campaign import Campaign, run
from backend.backtest.replay import Arm, Curve
from backend.pool import folders
from backend.settings import EncoderSection, settings
from benchmarks import data, pools
from benchmarks.measures import agent_regret, never_worse, saving
from benchmarks.pictures import grid, tables
from benchmarks.record import commit_of, show, write

MAIN = (
    Arm("random", head="logistic", name="random, logistic head"),
    Arm("random", name="random, service head"),
    Arm("auto", head="logistic", name="auto, logistic head"),
    Arm("auto", name="auto, service head"),
)
PLAIN, RANDOM, AUTO_PLAIN, AUTO = (arm.title for arm in MAIN)
ENDS = (MAIN[0], MAIN[-1])
SINGLE = ("max_herding", "typiclust", "margin_clusters", "class_balanced_margin", "badge", "margin", "entropy")
COMPARED = tuple(Arm(name, head="logistic", name=name) for name in SINGLE)
BY_HAND = tuple(Arm(way, head="logistic", name=way) for way in manual.WAYS)
COMPARED_LABELS = 1_000
MIRRORED, LAST_MAP = "cifar-10-mirrored", "cifar-10-last-map"
MIRRORED_ENCODER = EncoderSection(name="efficientnet-lite0-mirrored")
POLICY = ("strategies/auto.py", "strategies/typiclust.py", "strategies/margin_clusters.py",
          "strategies/class_balanced_margin.py")  # fmt: skip

Opening = Callable[[Path], Bench]
Found = dict[str, dict[str, list[Curve]]]


@dataclass(frozen=True)
class Pool:
    """A pool of a data set, how many labels are spent, and what is compared with a plain head over 1,000 of them."""

    name: str
    open: Opening
    labels: int
    beside: tuple[Arm, ...] = ()
    is_quick: bool = False
    arms: tuple[Arm, ...] = MAIN


def steps(labels: int) -> tuple[int, ...]:
    """Close looks where the curve is steep: 20, 40 … 100, 150, 200, 300 … `labels`."""
    wanted = [*range(20, 101, 20), 150, *range(200, labels, 100), labels]
    return tuple(sorted({step for step in wanted if step <= labels}))


def choose_pools(out: Path, quick: bool) -> list[Pool]:
    """All pools, in the order in which they are looked at."""
    cache = settings().cache / "datasets"
    many = COMPARED + BY_HAND

    def cifar() -> Path:
        given = os.environ.get("NEXTBATCH_DATA")
        return folders.open_dataset(Path(given).expanduser(), cache).root if given else folders.cifar10(cache).root

    def fashion() -> Path:
        return data.fashion_mnist(cache).root

    def of(name: str, source: Callable[[], Path]) -> tuple[Opening, Opening, Opening]:
        def balanced(folder: Path) -> Bench:
            return pools.whole(source(), folder, print)

        def tail(folder: Path) -> Bench:
            return pools.long_tail(balanced(out / f"{name}-whole"), folder)

        def doubled(folder: Path) -> Bench:
            return pools.near_duplicates(name, source(), folder, cache, print)

        return balanced, tail, doubled

    found = []
    for name, source, labels in (("cifar-10", cifar, 2_000), ("fashion-mnist", fashion, 1_000)):
        balanced, tail, doubled = of(name, source)
        found += [
            Pool(f"{name}-whole", balanced, labels, many, name == "cifar-10"),
            Pool(f"{name}-long-tail", tail, labels, COMPARED, name == "cifar-10"),
            Pool(f"{name}-near-duplicates", doubled, 1_000),
        ]
    found += [
        Pool(MIRRORED, lambda folder: pools.whole(cifar(), folder, print, MIRRORED_ENCODER), 2_000, arms=ENDS),
        Pool(LAST_MAP, lambda folder: pools.last_map(cifar(), folder, print), 2_000, arms=MAIN[:1]),
    ]
    for name, texts in (("mailing-lists", data.mailing_lists), ("spam", data.spam)):
        balanced, tail, _ = of(name, partial(texts, cache))
        found += [
            Pool(f"{name}-whole", balanced, 500, many, name == "mailing-lists"),
            Pool(f"{name}-long-tail", tail, 500, COMPARED),
        ]
    return [pool for pool in found if pool.is_quick] if quick else found


def replay(pool: Pool, seeds: int, options: argparse.Namespace) -> dict[str, list[Curve]]:
    """The curves of the pool's arms; those beside the main ones are looked at up to `COMPARED_LABELS`."""
    bench = pool.open(options.out / pool.name)
    schedule = steps(min(pool.labels, options.labels))
    short = steps(min(schedule[-1], COMPARED_LABELS))
    found: dict[str, list[Curve]] = {}
    is_main = options.main_only == "all" or pool.name in options.main_only.split(",")
    for arms, looks in ((pool.arms, schedule), (() if is_main else pool.beside, short)):

        def tell(done: int, total: int, last: str) -> None:
            print(f"{pool.name}: {done} of {total} replays{': ' + last if last else ''}", file=sys.stderr, flush=True)

        if arms:
            folder = options.out / pool.name / f"runs-{looks[-1]}"
            found |= run(bench, Campaign(arms, seeds, looks), folder, options.jobs, tell)
    return found


def cut(curves: list[Curve], labels: int) -> list[Curve]:
    """The same runs up to so many labels."""
    looks = sum(count <= labels for count in curves[0].labels)
    return [Curve(one.labels[:looks], one.accuracy[:looks], one.seconds[:looks], one.chosen[:looks]) for one in curves]


def compared(curves: dict[str, list[Curve]], names: tuple[str, ...]) -> dict[str, list[Curve]]:
    """Arms with a plain head over the labels that all of them spent."""
    return {name: cut(curves[name], COMPARED_LABELS) for name in (PLAIN, AUTO_PLAIN, *names)}


def rows_of(found: Found, agents: Found) -> list[dict[str, Any]]:
    """The measures of the evidence, as far as their pools were replayed."""
    paired = {pool: curves for pool, curves in found.items() if RANDOM in curves}
    rows = [never_worse(paired, ((AUTO, RANDOM), (AUTO_PLAIN, PLAIN)))] if paired else []
    if agents:
        rows.append(agent_regret(agents))
    for pool, curves in found.items():
        for at in (100, 500, 1_000, 2_000):
            for arm, what in ((AUTO, "service"), (AUTO_PLAIN, "selection")):
                rows += saving(f"{what}_{at}:{pool}", curves, arm, PLAIN, at)
    named = {"cifar-10-whole": ("service", "selection"), "cifar-10-long-tail": ("long_tail",)}
    named |= {"cifar-10-near-duplicates": ("duplicates",)}
    for pool, whats in named.items():
        for at in (1_000, 2_000):
            for what in whats:
                arm = AUTO if what == "service" else AUTO_PLAIN
                rows += saving(f"{what}_{at}", found.get(pool, {}), arm, PLAIN, at)
    rows += saving("cold_start_100", found.get("cifar-10-whole", {}), AUTO_PLAIN, PLAIN, 100)
    for pool in ("cifar-10-whole", MIRRORED):
        for bar in ("cifar-10-whole", LAST_MAP):
            if pool != bar and pool in found and bar in found:
                title = f"{PLAIN}, {bar}"
                both = {AUTO: found[pool][AUTO], title: found[bar][PLAIN]}
                for at in (1_000, 2_000):
                    rows += saving(f"service_{at}:{pool}:{bar}", both, AUTO, title, at)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 500 labels, three pools, the main arms")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--labels", type=int, default=None, help="at most so many a pool")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="pools by name, with commas between them; POOL:N for N seeds of it")
    parser.add_argument(
        "--main-only",
        nargs="?",
        default="",
        const="all",
        help="no single strategies, nothing by hand, no agent: of all pools, or of those that are named",
    )
    parser.add_argument("--dry", action="store_true", help="replay and print, and write no results")
    parser.add_argument("--out", type=Path, default=settings().cache / "benchmarks" / "evidence")
    options = parser.parse_args()
    os.environ.setdefault("NEXTBATCH_HOME", str(settings().cache / "benchmarks"))
    settings.cache_clear()
    options.main_only = "all" if options.quick else options.main_only
    options.seeds = options.seeds or (2 if options.quick else 10)
    options.labels = options.labels or (500 if options.quick else 2_000)
    only = {name: seeds for name, _, seeds in (one.partition(":") for one in filter(None, options.only.split(",")))}
    wanted = [pool for pool in choose_pools(options.out, options.quick) if not only or pool.name in only]
    found: Found = {pool.name: replay(pool, int(only.get(pool.name) or options.seeds), options) for pool in wanted}
    singles = {pool: compared(curves, SINGLE) for pool, curves in found.items() if SINGLE[0] in curves}
    by_hand = tuple(manual.WAYS)
    manuals = {pool: compared(curves, by_hand) for pool, curves in found.items() if by_hand[0] in curves}
    mains = {
        pool: {arm.title: curves[arm.title] for arm in MAIN if arm.title in curves}
        for pool, curves in found.items()
        if AUTO in curves
    }
    rows = rows_of(found, singles)
    for one in rows:
        print(show(one))
    if options.dry:
        return
    policy = {path: commit_of(path) for path in POLICY}
    write("evidence", rows, pools={pool.name: pool.labels for pool in wanted}, policy=policy)
    images = Path("docs/images")
    grid(images / "evidence.png", mains, PLAIN)
    if manuals:
        grid(images / "evidence-by-hand.png", manuals, PLAIN)
    if singles:
        grid(images / "evidence-strategies.png", singles, PLAIN)
    parts = {"The service": mains, "Strategies, plain head": singles, "By hand, plain head": manuals}
    Path("docs/evidence-tables.md").write_text(tables(parts, PLAIN))


if __name__ == "__main__":
    main()

"""How fast a pool is scanned, beside the model alone, ALaaS 0.2.1 and the loops people write.

    NEXTBATCH_DATA=ARCHIVE python -m benchmarks.scan [--only ID,ID] [--items N] [--repeat K] [--again] [--trial]

Each row is written to benchmarks/results/scan.json as soon as it is measured; a run that was stopped goes on with the
rows that are not there, and docs/benchmarks.md gets its table and picture. --again measures them anew; --trial writes
below the cache folder: figures from a busy machine, or from few items, are no results.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backend.learning.encoders import fastest
from backend.settings import settings
from benchmarks import record
from benchmarks.scan import against, mishaps, stored, sweeps, throughput
from benchmarks.scan.companion import stolen_s
from benchmarks.scan.drawing import document
from benchmarks.scan.stage import Stage

Measure = Callable[[Stage, int], Iterator[dict[str, Any]]]
MEASURES: dict[str, Measure] = {
    "cold_vs_bound": throughput.cold_vs_bound,
    "overhead_ms": throughput.overhead,
    "vs_alaas_cold": against.alaas_cold,
    "vs_alaas_job": against.alaas_job,
    "vs_loops_cold": against.loops,
    "vs_loops_job": against.loops,
    "latency_sweep": sweeps.latency,
    "batch_sweep": sweeps.minibatches,
    "warm_scan_s": stored.warm,
    "rescore_1m_s": stored.rescore,
    "peak_memory": stored.memory,
    "kill_resume": mishaps.killed,
    "broken_items": mishaps.broken,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=", ".join(MEASURES))
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--trial", action="store_true")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name] or list(MEASURES)
    if unknown := [name for name in wanted if name not in MEASURES]:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    if options.trial:
        record.RESULTS = settings().cache / "benchmarks" / "trial"
        record.RESULTS.mkdir(parents=True, exist_ok=True)
    done = _read(record.RESULTS / "scan.json")
    with Stage(options.items) as stage:
        fresh: set[str] = set()
        for name in wanted:
            if name in fresh or (name in done and not options.again):
                print(f"{name}: measured; --again measures it anew", flush=True)
                continue
            print(f"{name} …", flush=True)
            started, stolen_before = time.monotonic(), stolen_s()
            for measured in MEASURES[name](stage, options.repeat):
                seconds = time.monotonic() - started
                measured["measured_s"] = round(seconds, 1)
                measured["stolen"] = round((stolen_s() - stolen_before) / seconds, 3)
                measured["commit"] = record.commit_of()
                measured["auto"] = fastest()  # rows may come from machines of different CPUs
                measured["data"] = Path(stage.data.origin).name  # where it lies says nothing
                done[measured["id"]] = measured
                fresh.add(measured["id"])
                record.write("scan", [done[id_] for id_ in MEASURES if id_ in done])
                print(record.show(measured), flush=True)
    if fresh and not options.trial:
        document(json.loads((record.RESULTS / "scan.json").read_text()))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    return {row["id"]: row for row in json.loads(path.read_text())["rows"]}


if __name__ == "__main__":
    main()

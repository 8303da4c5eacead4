"""The rows that benchmarks write to benchmarks/results/NAME.json."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

RESULTS = Path(__file__).parent / "results"


def row(
    id_: str,
    measure: str,
    runs: Sequence[float],
    unit: str,
    *,
    target: float | None = None,
    better: Literal["lower", "higher"] = "lower",
    peers: Mapping[str, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One measure: the median of its runs, and whether it reached its target."""
    value = float(np.median(runs))
    met = None if target is None else (value <= target if better == "lower" else value >= target)
    return {
        "id": id_,
        "measure": measure,
        "value": round(value, 5),
        "unit": unit,
        "target": target,
        "better": better,
        "met": met,
        "runs": [round(float(run), 5) for run in runs],
        "peers": dict(peers or {}),
        **more,
    }


def write(name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> Path:
    """Write the rows with machine, commit and command."""
    module = sys.modules["__main__"].__spec__
    command = ["python", "-m", module.name if module else name, *sys.argv[1:]]
    report = {
        "machine": {"cores": os.cpu_count(), "cpu": cpu(), "python": platform.python_version()},
        "commit": commit_of(),
        "command": " ".join(command),
        **more,
        "rows": list(rows),
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def commit_of(path: str = ".") -> str:
    """The last commit that changed `path`; by default the last of all."""
    command = ["git", "log", "-1", "--format=%h", "--", path]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def show(one: Mapping[str, Any]) -> str:
    """A row as a line for the terminal."""
    target = "" if one["target"] is None else f"   target {one['target']:g}: {'met' if one['met'] else 'NOT MET'}"
    return f"{one['id']:28} {one['value']:>10.4g} {one['unit']:8}{target}"


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

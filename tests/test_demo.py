"""The demo as a newcomer runs it: a subprocess, everything real, and nothing left running afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from backend.processes import wait_until

ROUNDS = 2
BATCH = 12


@pytest.fixture
def command(tmp_path: Path) -> Iterator[list[str]]:
    yield [
        *(sys.executable, "-m", "backend.cli", "demo", "--rounds", str(ROUNDS), "--pool", "240", "--batch", str(BATCH)),
        *("--out", str(tmp_path / "out")),
    ]
    assert wait_until(lambda: not alive_below(tmp_path), 15), alive_below(tmp_path)


def alive_below(folder: Path) -> list[str]:
    """Processes whose command line, environment or working folder names `folder`: whatever the demo started."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder / "out").encode() in told:
            found.append(f"{process.name} {(process / 'cmdline').read_bytes().decode(errors='replace')[:200]}")
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("publish", ["reorder", "create"])
def test_every_round_closes_and_every_batch_is_served_in_our_order(
    publish: str, command: list[str], tmp_path: Path
) -> None:
    done = subprocess.run([*command, "--no-stay", "--publish", publish], capture_output=True, text=True, timeout=380)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["labels"] for row in report["rounds"]] == [BATCH, 2 * BATCH]
    assert [row["in_order"] for row in report["rounds"]] == [1.0, 1.0]
    assert len({row["version"] for row in report["rounds"]}) == ROUNDS
    for row in report["rounds"]:
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert 0 < row["random_accuracy"] < 1
        assert row["seconds_to_next_batch"] < 60
    assert Image.open(tmp_path / "out" / "curves.png").size[0] > 500


@pytest.mark.timeout(200)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_running(how: signal.Signals, command: list[str], tmp_path: Path) -> None:
    log = tmp_path / "demo.txt"
    with log.open("wb") as output:
        demo = subprocess.Popen([*command, "--stay"], stdout=output, stderr=subprocess.STDOUT)
    assert wait_until(lambda: bool(re.search("round 1: ", log.read_text())), 120), log.read_text()
    assert len(alive_below(tmp_path)) > 3

    demo.send_signal(how)

    demo.wait(30)

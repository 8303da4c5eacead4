"""The demo as a newcomer runs it: a subprocess, everything real, and nothing left running afterwards."""

import json
import os
import signal
import sqlite3
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
    assert wait_until(lambda: not alive_below(tmp_path), 60), alive_below(tmp_path)


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


@pytest.mark.timeout(700)
def test_every_round_closes_in_our_order_and_an_interrupted_demo_leaves_nothing_running(
    command: list[str], tmp_path: Path
) -> None:
    demo, log = started([*command, "--stay"], tmp_path)
    assert wait_until(lambda: "Ctrl-C stops everything" in log.read_text(), 500), log.read_text()
    assert len(alive_below(tmp_path)) > 3

    demo.send_signal(signal.SIGINT)

    assert demo.wait(60) == 130
    assert_both_rounds_closed(tmp_path / "out")


@pytest.mark.timeout(700)
def test_created_batches_close_the_rounds_too(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*command, "--publish", "create", "--no-stay"], capture_output=True, text=True, timeout=500)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert_both_rounds_closed(tmp_path / "out")


@pytest.mark.timeout(400)
def test_a_demo_killed_while_it_starts_leaves_nothing_running(command: list[str], tmp_path: Path) -> None:
    demo, log = started([*command, "--stay"], tmp_path)
    assert wait_until(lambda: len(alive_below(tmp_path)) > 3, 200), log.read_text()

    demo.kill()

    demo.wait(60)


def started(command: list[str], folder: Path) -> "tuple[subprocess.Popen[bytes], Path]":
    log = folder / "demo.txt"
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), log


def assert_both_rounds_closed(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    assert [row["labels"] for row in report["rounds"]] == [BATCH, 2 * BATCH]
    assert [row["in_order"] for row in report["rounds"]] == [1.0, 1.0]
    assert len({row["version"] for row in report["rounds"]}) == ROUNDS
    for row in report["rounds"]:
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert 0 < row["random_accuracy"] < 1
        assert row["seconds_to_next_batch"] < 60
    with sqlite3.connect(out / "home" / "nextbatch" / "nextbatch.db") as database:
        ((arms,),) = database.execute("SELECT arms FROM comparisons").fetchall()
    assert json.loads(arms)[0]["accuracy"] == [row["random_accuracy"] for row in report["rounds"]]
    assert Image.open(out / "curves.png").size[0] > 500

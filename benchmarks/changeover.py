"""How long /predict takes while a project's encoder is changed, beside what it takes while rounds simply go on.

    [NEXTBATCH_DATA=DIR] python -m benchmarks.changeover [--items 1000] [--seconds 40] [--runs 1]

Triton, worker and web process run as `nextbatch serve` runs them, nice values included, on one machine. A project of
`items` images (handwritten digits by default) is labelled and a round is asked for every five seconds. Meanwhile ten
calls a second ask for ten tasks each, open loop: a call is made when it is due, whether or not those before were
answered. Every tenth call asks for one item instead that nobody knows, which goes through the encoder in use.

First for `seconds` as usual, then from the moment at which ResNet-18 with random weights (as fast as trained ones) is
configured in place of the default encoder until it is in use and the old one has left Triton.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.record import row, show, write

RATE, TASKS, LABEL_EVERY_S = 10.0, 10, 5.0
PATIENCE_S = 240.0
LABELS = tuple("0123456789")


@dataclass
class Calls:
    """Seconds of each call to known and to unknown items, and how many did not get what they asked for."""

    known: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)
    failed: int = 0
    empty: int = 0
    when: list[tuple[float, float]] = field(default_factory=list)
    """Of calls to known items: seconds since the first call, and seconds taken."""

    def p(self, percent: float, which: str = "known") -> float:
        return float(np.percentile(getattr(self, which), percent))


@contextmanager
def asking(url: str, known: Sequence[str], strangers: Iterator[str], label_config: str) -> Iterator[Calls]:
    """Ask until the block ends."""
    calls, over, lock, begun = Calls(), threading.Event(), threading.Lock(), time.perf_counter()
    client = httpx.Client(base_url=url, timeout=20, limits=httpx.Limits(max_connections=64))
    some = itertools.cycle([known[at : at + TASKS] for at in range(0, len(known) - TASKS, TASKS)])

    def ask(uris: Sequence[str], seconds: list[float]) -> None:
        tasks = [{"data": {"image": uri}} for uri in uris]
        body = {"tasks": tasks, "project": "1.1", "label_config": label_config}
        started = time.perf_counter()
        try:
            answer = client.post("/predict", json=body)
            found = answer.json()["results"] if answer.status_code == 200 else []
        except (httpx.HTTPError, ValueError):
            found = []
        took = time.perf_counter() - started
        with lock:
            seconds.append(took)
            if seconds is calls.known:
                calls.when.append((round(started - begun, 2), round(took, 4)))
            calls.failed += len(found) != len(tasks)
            calls.empty += any(not entry["result"] for entry in found)

    def pace() -> None:
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            for number in itertools.count():
                if over.wait(max(0.0, started + number / RATE - time.perf_counter())):
                    return
                if number % 10 == 9:
                    pool.submit(ask, [next(strangers)], calls.unknown)
                else:
                    pool.submit(ask, next(some), calls.known)

    thread = threading.Thread(target=pace)
    thread.start()
    try:
        yield calls
    finally:
        over.set()
        thread.join()
        client.close()


@contextmanager
def labelling(project_id: int, truth: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Three labels and a round every few seconds, until the block ends."""
    from backend.database import Project, transaction
    from backend.rounds.labelling import Given, store
    from backend.rounds.queue import request_round

    over, given = threading.Event(), iter(truth)

    def label() -> None:
        while not over.wait(LABEL_EVERY_S):
            with transaction() as session:
                some = [Given(name, uri=uri) for uri, name in itertools.islice(given, 3)]
                store(session, session.get_one(Project, project_id), some)
                request_round(session, project_id, "new_labels")

    thread = threading.Thread(target=label)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def service(home: Path, root: Path) -> Iterator[str]:
    """Triton, worker and web process; the address of the last."""
    from backend.connections import answers
    from backend.processes import free_port, spawn, stop, wait_until
    from backend.rounds.queue import prepare_database
    from backend.scoring.serving import EmbeddedTriton

    prepare_database()
    with ExitStack() as stack:
        triton = EmbeddedTriton(home / "triton")
        triton.start()
        stack.callback(triton.stop)
        environment = os.environ | {"TRITON_URL": triton.url, "NEXTBATCH_DATA_ROOT": str(root)}
        worker = spawn([sys.executable, "-m", "backend.cli", "worker"], home / "worker.log", environment, nice=10)
        stack.callback(stop, worker)
        port = free_port()
        program = f"from backend.web.server import run; run('127.0.0.1', {port})"
        stack.callback(stop, spawn([sys.executable, "-c", program], home / "web.log", environment))
        url = f"http://127.0.0.1:{port}"

        assert wait_until(lambda: answers(f"{url}/health"), 30), (home / "web.log").read_text()
        yield url


def _run(options: argparse.Namespace, home: Path) -> tuple[Calls, Calls, float, dict[str, Any]]:
    """Calls as usual and during the change, how long it took, and its report."""
    import io

    import torch

    from backend.database import EncoderChange, Project, Round, reading, transaction
    from backend.pool.folders import digits, open_dataset
    from backend.processes import wait_until
    from backend.rounds import changes, configured
    from backend.rounds.labelling import Given, NewProject, make_project, store
    from backend.rounds.pushes import push_lines
    from backend.rounds.queue import request_round
    from backend.settings import EncoderSection, settings
    from backend.vision import torchvision

    cache = settings().cache / "datasets"
    data = open_dataset(Path(os.environ["NEXTBATCH_DATA"]), cache) if "NEXTBATCH_DATA" in os.environ else digits(cache)
    settings().data_root = data.root
    order = np.random.default_rng(0).permutation(len(data.train))
    named = [(str(data.train.paths[at].relative_to(data.root)), LABELS[data.train.labels[at]]) for at in order]
    pool, strangers = named[: options.items], iter([uri for uri, _ in named[options.items :]])
    weights = home / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(torchvision("models").resnet18(weights=None).state_dict(), weights)
    with service(home, data.root) as url:
        with transaction() as session:
            project = make_project(session, NewProject(name="changing", labels=LABELS))
            project.studio_project_id = 1
        push_lines(project, io.BytesIO("\n".join(json.dumps({"uri": uri}) for uri, _ in pool).encode()))
        with transaction() as session:
            store(session, session.get_one(Project, project.id), [Given(name, uri=uri) for uri, name in pool[:100]])
            first = request_round(session, project.id, "hand").id

        def is_done() -> bool:
            with reading() as session:
                return session.get_one(Round, first).state == "done"

        def newest() -> EncoderChange:
            with reading() as session:
                return changes.latest(session, project.id) or EncoderChange(state="")

        assert wait_until(is_done, PATIENCE_S), (home / "worker.log").read_text()[-3000:]
        uris, truth = [uri for uri, _ in pool], pool[100:]
        with labelling(project.id, truth):
            with asking(url, uris, strangers, project.label_config):
                time.sleep(5)  # everything was asked for once
            with asking(url, uris, strangers, project.label_config) as usual:
                time.sleep(options.seconds)
            started = time.perf_counter()
            with asking(url, uris, strangers, project.label_config) as changing:
                with transaction() as session:
                    there = session.get_one(Project, project.id)
                    encoder = EncoderSection(name="resnet18", weights=weights)
                    configured.replace(session, there, there.settings.model_copy(update={"encoder": encoder}))
                ended = wait_until(lambda: newest().unloaded_at is not None, PATIENCE_S, 0.25)
            took = time.perf_counter() - started
        assert ended, (home / "worker.log").read_text()[-3000:]
        assert newest().state == "in_use", newest().failure
        return usual, changing, took, newest().report


def main() -> None:
    """Measure on a home of its own, and write benchmarks/results/changeover.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as home:
            os.environ["NEXTBATCH_HOME"] = home
            from backend import database
            from backend.rounds import queue
            from backend.settings import settings

            for cached in (settings, database.engine, queue.client):
                cached.cache_clear()
            runs.append(_run(options, Path(home)))
    rows = []
    for which, what in (("known", f"{TASKS} known tasks a call"), ("unknown", "an item that goes through the encoder")):
        for percent in (50, 99):
            before = [usual.p(percent, which) for usual, *_ in runs]
            during = [changing.p(percent, which) for _, changing, *_ in runs]
            ratio = [one / other for one, other in zip(during, before, strict=True)]
            rows += [
                row(
                    f"{which}_p{percent}_usual", f"/predict, {what}, {percent}th percentile, rounds go on", before, "s"
                ),
                row(f"{which}_p{percent}_changing", "the same while the encoder is changed", during, "s"),
                row(
                    f"{which}_p{percent}_ratio",
                    "the second over the first",
                    ratio,
                    "×",
                    target=2 if percent == 99 else None,
                ),
            ]
    for which in ("failed", "empty"):
        lost = [float(getattr(usual, which) + getattr(changing, which)) for usual, changing, *_ in runs]
        what = "calls that were not answered with an entry a task" if which == "failed" else "calls with an empty entry"
        rows.append(row(which, what, lost, "calls", target=0))
    asked = [float(len(changing.known) + len(changing.unknown)) for _, changing, *_ in runs]
    rows.append(row("asked", "calls during the change", asked, "calls", better="higher"))
    rows.append(
        row(
            "took",
            f"from the configuration to the old one's leave, {options.items} items",
            [t for *_, t, _ in runs],
            "s",
        )
    )
    slowest = [sorted(changing.when, key=lambda one: -one[1])[:10] for _, changing, *_ in runs]
    write("changeover", rows, report=[report for *_, report in runs], slowest=slowest)
    for one in rows:
        print(show(one))


if __name__ == "__main__":
    main()

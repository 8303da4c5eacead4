"""How quickly the web process answers Label Studio while 50 events a second come in, and whether any is lost.

    NEXTBATCH_DATA=DIR python -m benchmarks.webhook [--seconds 20] [--rate 50] [--items 10000]

Beside it a scan of `items` images of DIR runs as in a worker (Triton embedded where it can be, both at their nice
values); with --items 0 nothing runs beside it, and the results go to another file.

Open loop: an event is sent when it is due, whether or not those before it were answered, each on a connection of
its own, as Label Studio does. Beside them /health and /setup are asked five times a second. Times are seconds.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.record import row, show, write

PROBES_PER_S = 5


@dataclass
class Storm:
    """Seconds to answer by endpoint, events sent, and how many were not answered with 200."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"webhook": [], "health": [], "setup": []})
    sent: int = 0
    refused: int = 0

    def p99(self, endpoint: str) -> float:
        return float(np.percentile(self.seconds[endpoint], 99))


def measure(
    url: str, event: dict[str, Any], project: str, label_config: str, rate: float = 50, seconds: float = 60
) -> Storm:
    """Send `event` `rate` times a second for so many seconds, and ask /health and /setup meanwhile."""
    storm, lock, over = Storm(), threading.Lock(), threading.Event()
    setup = json.dumps({"project": project, "schema": label_config}).encode()
    webhook = json.dumps(event).encode()

    def ask(endpoint: str, body: bytes | None) -> None:
        took, status = request(url, endpoint, body)
        with lock:
            storm.seconds[endpoint].append(took)
            storm.refused += status != 200

    def probe() -> None:
        while not over.wait(1 / PROBES_PER_S):
            ask("health", None)
            ask("setup", setup)

    prober = threading.Thread(target=probe)
    prober.start()
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for number in range(round(rate * seconds)):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            pool.submit(ask, "webhook", webhook)
            storm.sent += 1
    over.set()
    prober.join()
    return storm


def request(url: str, endpoint: str, body: bytes | None) -> tuple[float, int]:
    """Seconds and status of one call on a connection of its own; status 0 where there was no answer."""
    address = urlsplit(url)
    started = time.perf_counter()
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", f"/{endpoint}", body, headers)
        answer = connection.getresponse()
        answer.read()
        return time.perf_counter() - started, answer.status
    except OSError:
        return time.perf_counter() - started, 0
    finally:
        connection.close()


def main() -> None:
    """Measure three times on a database of its own, and write benchmarks/results/webhook.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NEXTBATCH_HOME"] = home
        with _triton(options.items) as triton_url:
            runs = [_run(options, number, triton_url) for number in range(1, 4)]
    beside = f" beside a scan of {options.items} items" if options.items else ""
    rows = [
        row(
            f"{endpoint}_p99", f"/{endpoint}, 99th percentile at {options.rate:g}/s{beside}", values, "s", target=target
        )
        for endpoint, target in (("webhook", 0.05), ("health", 0.02), ("setup", 0.02))
        for values in [[storm.p99(endpoint) for storm, _, _ in runs]]
    ]
    lost = [float(storm.sent - stored) for storm, stored, _ in runs]
    rows.append(row("lost", "events that were sent and are not in the database", lost, "events", target=0))
    if options.items:
        rates = [rate for _, _, rate in runs]
        rows.append(row("scan", "items that the scan encoded a second meanwhile", rates, "items/s", better="higher"))
    write("webhook" if options.items else "webhook_alone", rows)
    for one in rows:
        print(show(one))


@contextmanager
def _triton(items: int) -> Iterator[str | None]:
    """The embedded Triton where there is a scan to run and it can run here, else None."""
    from backend.scoring import serving
    from backend.settings import settings

    if not items or not serving.is_supported()[0]:
        yield None
        return
    server = serving.EmbeddedTriton(settings().home / "triton")
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def _scan(project_id: int, items: int, first: int, triton_url: str | None) -> Iterator[None]:
    """A scan of `items` images in a process of its own, as a worker does it, from its first minibatch to the end."""
    import sqlalchemy as sa

    from backend.database import Item, reading, transaction
    from backend.pool.catalog import NewItem, add_items
    from backend.pool.folders import open_dataset
    from backend.processes import spawn, stop, wait_until
    from backend.settings import settings

    if not items:
        yield
        return
    data = open_dataset(Path(os.environ["NEXTBATCH_DATA"]), settings().cache / "datasets")
    with transaction() as session:
        add_items(session, project_id, (NewItem(str(path)) for path in data.train.paths[first : first + items]))
    environment = os.environ | {"NEXTBATCH_DATA_ROOT": str(data.root)}
    environment |= {"TRITON_URL": triton_url} if triton_url else {}
    program = f"from backend.rounds.encoding import encode_new; encode_new({project_id}, lambda done, total: None)"
    worker = spawn([sys.executable, "-c", program], settings().home / "scan.log", environment, nice=10)

    def has_begun() -> bool:
        with reading() as session:
            encoded = sa.select(Item.id).where(Item.project_id == project_id, Item.state == "encoded").limit(1)
            return session.scalar(encoded) is not None

    try:
        assert wait_until(has_begun, timeout_s=60), (settings().home / "scan.log").read_text()
        yield
        assert worker.poll() is None, "the scan ended before the storm did: give it more --items"
    finally:
        stop(worker)


def _run(options: argparse.Namespace, number: int, triton_url: str | None) -> tuple[Storm, int, float]:
    """One storm on a web process of its own; the events that reached the database, and items encoded a second."""
    import sqlalchemy as sa

    from backend.database import Event, Item, Project, reading, transaction
    from backend.processes import free_port, spawn, stop, wait_until
    from backend.rounds.queue import prepare_database
    from backend.studio.labels import image_config

    prepare_database()
    config = image_config(["cat", "dog"])
    with transaction() as session:
        name = f"storm{number}"
        project = Project(name=name, config={"name": name}, studio_project_id=number, label_config=config)
        session.add(project)
    encoded = sa.select(sa.func.count()).select_from(Item).where(Item.state == "encoded")
    port = free_port()
    program = f"from backend.web.server import run; run('127.0.0.1', {port})"
    web = spawn([sys.executable, "-c", program], Path(os.environ["NEXTBATCH_HOME"]) / "web.log")
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: request(url, "health", None)[1] == 200, timeout_s=30)
        event = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": number, "label_config": config},
            "annotation": {"id": 1, "task": 1, "result": []},
            "task": {"id": 1, "data": {"image": "https://example.org/1.jpg"}},
        }
        with _scan(project.id, options.items, number * options.items, triton_url):
            with reading() as session:
                before = session.scalar(encoded) or 0
            storm = measure(url, event, f"{number}.1", config, options.rate, options.seconds)
            with reading() as session:
                after = session.scalar(encoded) or 0
    finally:
        stop(web)
    with reading() as session:
        query = sa.select(sa.func.count()).select_from(Event).where(Event.project_id == project.id)
        return storm, session.scalar(query) or 0, (after - before) / options.seconds


if __name__ == "__main__":
    main()

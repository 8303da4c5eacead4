"""How quickly the pages are there, what they weigh, and how quickly the API lists, at 100,000 items and 50 rounds.

    python -m benchmarks.web [--items 100000] [--rounds 50] [--calls 200]

A project is written into an empty home, and the product's own web process serves it. Beside the calls a second process
writes as a round's scan does: every half second it marks 500 items and tells its progress. A chromium of the system
(of `playwright`) opens each page in a fresh context. Bytes are those of HTML, CSS and JavaScript, uncompressed.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import sqlalchemy as sa

from benchmarks.record import row, show, write

BATCH, HOLDOUT = 50, 500
PAGES = ("", "/learning", "/batch", "/map", "/models", "/health", "/settings")
CALLS = (
    "rounds",
    "batches",
    "batches/50",
    "models",
    "curve",
    "items",
    "items?state=failed",
    "items?from=90000",
    "alerts",
    "jobs",
    "backtests",
)
RUNS = 5
_PAINTED = """() => new Promise((done) => new PerformanceObserver((seen) => {
  for (const one of seen.getEntries()) if (one.name === "first-contentful-paint") done(one.startTime);
}).observe({ type: "paint", buffered: true }))"""


def make(items: int, rounds: int) -> str:
    """Write the project; its name."""
    from backend.database import Annotation, Batch, Item, ModelVersion, Pick, Project, Round, Worker, now, transaction
    from backend.learning.evaluate import wilson
    from backend.learning.layout import Axes
    from backend.pool.catalog import item_key
    from backend.rounds.advice import keep_advice
    from backend.rounds.atlas import Map, map_path
    from backend.rounds.queue import prepare_database
    from backend.studio.labels import image_config

    prepare_database()
    classes = tuple(f"class {number}" for number in range(10))
    random = np.random.default_rng(0)
    with transaction() as session:
        project = Project(
            name="large", config={"name": "large"}, studio_project_id=1, label_config=image_config(classes)
        )
        session.add(project)
        session.flush()
        written = [
            {
                "id": at + 1,
                "project_id": project.id,
                "key": item_key(str(at)),
                "uri": f"s3://bucket/pool/{at:07}.jpg",
                "state": "failed" if at % 500 == 7 else "encoded",
                "failure": f"It has {at} bytes." if at % 500 == 7 else None,
                "content_hash": f"{at:064x}",
                "task_id": at + 1,
                "is_holdout": at % 100 == 0,
                "data": {},
            }
            for at in range(items)
        ]
        session.execute(sa.insert(Item), written)
        session.merge(Worker(executor_id="one", host="one", pid=1, seen_at=now()))
        labelled = [*[*range(100, rounds * BATCH * 7, 7)][: rounds * BATCH], *range(0, HOLDOUT * 100, 100)]
        marks = [
            {
                "project_id": project.id,
                "item_id": at + 1,
                "external_id": at + 1,
                "label": classes[at % 10],
                "annotator": "ann",
                "lead_time_s": 3.0,
                "created_at": now(),
                "updated_at": now(),
            }
            for at in dict.fromkeys(labelled)
            if at < items
        ]
        session.execute(sa.insert(Annotation), marks)
        for number in range(1, rounds + 1):
            _round(session, project, number, number == rounds, (Round, ModelVersion, Batch, Pick), wilson, now)
        newest = session.scalars(sa.select(ModelVersion).where(ModelVersion.number == rounds)).one()
    keep_advice(project, newest)
    ids = np.arange(1, items + 1)
    spots = random.normal(size=(10, 2)) * 4
    places = (spots[ids % 10] + random.normal(size=(items, 2))).astype(np.float32)
    flat = Axes(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    said = (ids % 10).astype(np.int32), random.random(items).astype(np.float32)
    strange = random.random(items).astype(np.float32)
    Map(ids, places, *said, strange, flat, classes, "e" * 64, items, f"v{rounds}").save(map_path(1))
    return "large"


def _round(session: Any, project: Any, number: int, is_last: bool, tables: Any, wilson: Any, now: Any) -> None:
    round_table, version_table, batch_table, pick_table = tables
    round_ = round_table(
        project_id=project.id,
        number=number,
        workflow_id=f"b{number}",
        state="done",
        trigger="new_labels",
        started_at=now(),
        finished_at=now(),
        report={"version": f"v{number}", "batch": f"v{number}+b{number}", "size": BATCH},
    )
    session.add(round_)
    session.flush()
    right = round(HOLDOUT * (0.96 - 0.5 * number**-0.8))
    interval = wilson(right, HOLDOUT)
    metrics = {
        "source": "holdout",
        "labels": HOLDOUT,
        "accuracy": right / HOLDOUT,
        "macro_f1": 0.9,
        "log_loss": 0.3,
        "accuracy_interval": {"low": interval.low, "high": interval.high},
        "calibration_error": 0.02,
    }
    version = version_table(
        project_id=project.id,
        round_id=round_.id,
        number=number,
        encoder_digest="e" * 64,
        head_digest=f"{number:064x}",
        snapshot="",
        seed=0,
        metrics=metrics,
        lineage={"labels": BATCH * number, "method": "logistic"},
        state="champion" if is_last else "retired",
    )
    session.add(version)
    session.flush()
    batch = batch_table(
        project_id=project.id,
        round_id=round_.id,
        number=number,
        version=f"v{number}+b{number}",
        strategy="max_herding",
        model_version_id=version.id,
        state="published" if is_last else "replaced",
        published_at=now(),
    )
    session.add(batch)
    session.flush()
    session.execute(
        sa.insert(pick_table),
        [
            {
                "batch_id": batch.id,
                "rank": rank,
                "item_id": number * 1_000 + rank + 11,
                "utility": 0.5,
                "reason": "its two best classes are 4% apart",
                "is_random_slice": rank % 10 == 0,
                "is_kept": False,
                "nearest_id": number * 1_000 + rank + 10,
                "prediction": {
                    "label": "class 1",
                    "probabilities": {f"class {k}": round(0.4 - 0.07 * k, 3) for k in range(5)},
                },
            }
            for rank in range(BATCH)
        ],
    )


def work(stopping: Any, items: int) -> None:
    """Write as a scan does, twice a second, until `stopping`."""
    from backend.database import Round, Worker, now, transaction
    from backend.pool.catalog import mark_encoded

    with transaction() as session:
        session.add(
            Round(project_id=1, number=1_000, workflow_id="b", state="running", step="encode", started_at=now())
        )
    done = 0
    while not stopping.wait(0.5):
        ids = [(done + at) % items + 1 for at in range(500)]
        done += 500
        with transaction() as session:
            mark_encoded(session, {id_: f"{id_ - 1:064x}" for id_ in ids if id_ % 500 != 8})
            told = {"done": done, "total": items, "bottleneck": "encode", "left_s": 60.0}
            session.execute(sa.update(Round).where(Round.number == 1_000).values(progress=told))
            session.merge(Worker(executor_id="one", host="one", pid=1, seen_at=now()))


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The product's own web process."""
    from backend.connections import answers
    from backend.processes import free_port, spawn, stop, wait_until

    port = free_port()
    process = spawn(
        [sys.executable, "-m", "backend.cli", "web", "--port", str(port)], home / "web.log", dict(os.environ)
    )
    url = f"http://127.0.0.1:{port}"
    try:
        if not wait_until(lambda: answers(f"{url}/health"), timeout_s=60):
            raise TimeoutError((home / "web.log").read_text())
        yield url
    finally:
        stop(process)


def calls(url: str, name: str, count: int) -> dict[str, list[float]]:
    """Milliseconds of each list call."""
    took: dict[str, list[float]] = {}
    with httpx.Client(base_url=f"{url}/api/v1/projects/{name}/", timeout=30) as client:
        for turn in range(count + 3):
            for call in CALLS:
                began = time.perf_counter()
                client.get(call).raise_for_status()
                if turn >= 3:
                    took.setdefault(call, []).append((time.perf_counter() - began) * 1e3)
    return took


def views(url: str, name: str) -> dict[str, dict[str, Any]]:
    """First contentful paints in ms, and bytes, of each page; for the map also milliseconds a frame."""
    from playwright.sync_api import sync_playwright

    from tests.services.browser import CHROMIUM

    found: dict[str, dict[str, Any]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for page_path in PAGES:
            paints = []
            for _ in range(RUNS):
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                page, sizes = context.new_page(), []
                page.on("response", lambda answer, sizes=sizes: sizes.append(answer))
                page.goto(f"{url}/projects/{name}{page_path}")
                paints.append(page.evaluate(_PAINTED))
                kinds = ("document", "stylesheet", "script")
                weight = sum(len(one.body()) for one in sizes if one.request.resource_type in kinds)
                frames = _frames(page) if page_path == "/map" else None
                context.close()
            found[page_path or "/loop"] = {"paints": paints, "bytes": weight, "frames": frames}
        browser.close()
    return found


def _frames(page: Any) -> list[float]:
    """Milliseconds that drawing the whole map takes the page's thread, 40 times, as it is moved."""
    page.wait_for_selector("canvas[data-drawn]")
    took: list[float] = page.evaluate("""async () => {
      const canvas = document.getElementById("map"), took = [];
      for (let turn = 0; turn < 40; turn++) {
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key: turn % 2 ? "ArrowLeft" : "ArrowRight" }));
        await new Promise((done) => requestAnimationFrame((at) => { const began = performance.now();
          requestAnimationFrame(() => done(took.push(performance.now() - began))); }));
      }
      return took;
    }""")
    return took


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--calls", type=int, default=200)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEXTBATCH_HOME"] = folder
        name = make(asked.items, asked.rounds)
        stopping = multiprocessing.get_context("spawn").Event()
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(stopping, asked.items), daemon=True)
        with serving(Path(folder)) as url:
            worker.start()
            took, seen = calls(url, name, asked.calls), views(url, name)
            stopping.set()
            worker.join()
    rows = [
        row(
            f"web.api.{call}",
            f"GET {call}: 99th percentile of {asked.calls} calls beside a scan's writes",
            [float(np.percentile(times, 99))],
            "ms",
            target=100,
            median_ms=round(statistics.median(times), 2),
        )
        for call, times in took.items()
    ]
    for page, one in seen.items():
        paints = [float(paint) for paint in one["paints"]]
        rows.append(row(f"web.fcp{page.replace('/', '.')}", "first contentful paint", paints, "ms", target=1_000))
        rows.append(
            row(
                f"web.bytes{page.replace('/', '.')}", "HTML, CSS and JavaScript", [one["bytes"] / 1e3], "kB", target=300
            )
        )
    frames = seen["/map"]["frames"]
    rows.append(row("web.map.frame", f"a frame of the moving map, {asked.items} points", frames, "ms", target=50))
    print("\n".join(map(show, rows)))
    print(write("web", rows, items=asked.items, rounds=asked.rounds))


if __name__ == "__main__":
    main()

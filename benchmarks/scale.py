"""Rates by which docs/scale.md works out a pool of 100 million items: the catalogue, the vector store, parcels, jobs.

    python -m benchmarks.scale [--items 100000]

A Postgres of its own is started, without fsync; vectors are random, of the default encoder's size. On a machine that
does other things, the rates are lower bounds. Writes benchmarks/results/scale.json.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from backend.database import Item, Job, Project, engine, reading, transaction
from backend.learning.architectures import ARCHITECTURES
from backend.pool import catalog
from backend.rounds import jobs
from backend.rounds.encoding import Embeddings
from backend.rounds.outbox import Outbox, drain
from backend.rounds.queue import prepare_database
from backend.scoring.predict import predict_rows
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from benchmarks.record import row, show, write
from tests.services import postgres

RUNS = 3
MINIBATCH = 32
PARCEL = 1_500  # items that a GPU finishes in half a second
CLASSES = 10


@dataclass(frozen=True)
class Pool:
    items: int
    dims: int
    hashes: tuple[str, ...]
    rows: np.ndarray[Any, np.dtype[np.float32]]


def made(items: int) -> Pool:
    dims = ARCHITECTURES["efficientnet-lite0"].dims
    hashes = tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in range(items))
    return Pool(items, dims, hashes, np.random.default_rng(0).standard_normal((items, dims), np.float32))


def rate(items: int, act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return items / (time.perf_counter() - started)


def catalogue(pool: Pool) -> list[dict[str, Any]]:
    """Adding items to Postgres, marking them, and what a row takes."""
    added, marked = [], []
    for run in range(RUNS):
        with transaction() as session:
            session.add(Project(id=run + 1, name=f"p{run}", config={"name": f"p{run}"}))
        items = [catalog.NewItem(f"s3://pool/{run}/{hash_}.jpg", validator=hash_[:32]) for hash_ in pool.hashes]

        def add(run: int = run, items: list[catalog.NewItem] = items) -> None:
            for part in catalog.chunks(items, catalog.INSERT_CHUNK):
                with transaction() as session:
                    catalog.add_items(session, run + 1, part)

        added.append(rate(pool.items, add))
        with reading() as session:
            ids = session.scalars(sa.select(Item.id).where(Item.project_id == run + 1).order_by(Item.id)).all()
        known = dict(zip(ids, pool.hashes, strict=True))

        def mark(known: dict[int, str] = known) -> None:
            for part in catalog.chunks(known.items(), PARCEL):
                with transaction() as session:
                    catalog.mark_encoded(session, dict(part))

        marked.append(rate(pool.items, mark))
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM FULL items"))
        size = connection.scalar(sa.text("SELECT pg_total_relation_size('items')")) or 0
    return [
        row("items_added", "items added to the catalogue a second, Postgres", added, "items/s", better="higher"),
        row("items_marked", "items marked as encoded a second, Postgres", marked, "items/s", better="higher"),
        row("item_bytes", "bytes of an item in Postgres, indexes included", [size / pool.items / RUNS], "B"),
    ]


def store(pool: Pool) -> list[dict[str, Any]]:
    """Writing vectors minibatch by minibatch, finding rows, and a new head over all of them."""
    put, found, scored = [], [], []
    weights = np.random.default_rng(1).standard_normal((pool.dims, CLASSES)).astype(np.float32)
    for run in range(RUNS):
        made = VectorStore(settings().home / f"vectors-{run}", "a" * 64, pool.dims)

        def fill(made: VectorStore = made) -> None:
            for start in range(0, pool.items, MINIBATCH):
                part = slice(start, start + MINIBATCH)
                made.put(pool.hashes[part], pool.rows[part])

        put.append(rate(pool.items, fill))
        found.append(rate(pool.items, lambda made=made: made.locate(pool.hashes)))
        scored.append(rate(pool.items, lambda made=made: predict_rows(lambda x: x @ weights, made, pool.hashes)))
        index_bytes = (made.path / "index.db").stat().st_size / pool.items
    return [
        row("vectors_put", f"vectors stored a second, {MINIBATCH} a commit", put, "items/s", better="higher"),
        row("vectors_located", "content hashes found a second", found, "items/s", better="higher"),
        row("rescored", "items a second that a new head predicts, hashes found included", scored, "items/s",
            better="higher"),
        row("index_bytes", "bytes of a vector in the store's index", [index_bytes], "B"),
    ]  # fmt: skip


def parcels(pool: Pool) -> list[dict[str, Any]]:
    """Vectors sent through Postgres, and stored by the worker that has the home."""
    from dataclasses import replace

    from backend.learning.encoders import EncoderSpec

    spec = EncoderSpec("any", "b" * 64, pool.dims, 224, "fp32", "", Path())
    sent, drained, cut = [], [], []
    for run in range(RUNS):
        project_id = run + 1
        with transaction() as session:
            session.execute(sa.update(Item).where(Item.project_id == project_id).values(state="new"))
        cut.append(rate(pool.items, lambda: _cut(project_id, spec.digest)))  # noqa: B023 - called at once
        with reading() as session:
            job = session.scalar(sa.select(sa.func.min(Job.id)).where(Job.project_id == project_id))
            ids = session.scalars(sa.select(Item.id).where(Item.project_id == project_id).order_by(Item.id)).all()
        outbox = Outbox(job or 0, pool.dims)

        def send(outbox: Outbox = outbox, ids: Any = ids) -> None:
            for start in range(0, pool.items, PARCEL):
                part = slice(start, start + PARCEL)
                outbox.put(pool.hashes[part], pool.rows[part])
                outbox.send(dict(zip(ids[part], pool.hashes[part], strict=True)))

        sent.append(rate(pool.items, send))
        target = VectorStore(settings().home / f"drained-{run}", spec.digest, pool.dims)
        embeddings = Embeddings(replace(spec), target)
        drained.append(rate(pool.items, lambda: drain(project_id, embeddings)))  # noqa: B023 - called at once
    return [
        row("jobs_cut", "items a second cut into jobs", cut, "items/s", better="higher"),
        row("parcels_sent", "items a second that one worker sends through Postgres", sent, "items/s", better="higher"),
        row("parcels_stored", "items a second that one worker stores from Postgres", drained, "items/s",
            better="higher"),
    ]  # fmt: skip


def _cut(project_id: int, digest: str) -> None:
    with transaction() as session:
        jobs._cut(session, project_id, digest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    pool = made(options.items)
    folder = tempfile.TemporaryDirectory(dir=Path.cwd())
    with folder as home, postgres.running() as server, postgres.database(server, "scale") as url:
        os.environ |= {"NEXTBATCH_HOME": home, "NEXTBATCH_DATABASE_URL": url}
        prepare_database()
        rows = store(pool) + catalogue(pool) + parcels(pool)
        engine().dispose()
    for one in rows:
        print(show(one))
    print(write("scale", rows, items=pool.items, dims=pool.dims))


if __name__ == "__main__":
    main()

"""nextbatch's side: a process that does with a pool what a worker does, when it is asked on stdin.

Each question is a JSON object with `do`, the name of a function here, and its arguments. Everything below is the
code of a round: pool listing, catalogue, sources, decoding, pipeline, Triton, vector store, learn, choose.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from backend.database import Item, Project, reading, transaction
from backend.learning.encoders import load
from backend.pool.listing import list_pool
from backend.pool.refresh import refresh
from backend.rounds import encoding
from backend.rounds.encoding import open_encoder, source_config
from backend.rounds.queue import prepare_database
from backend.scoring import pipeline
from backend.scoring.repository import model_name
from backend.settings import settings
from backend.studio.labels import image_config
from benchmarks.scan.companion import ANSWER


def make(config: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """A project whose items are in no vector store: list its pool."""
    prepare_database()
    with transaction() as session:
        project = Project(
            name=config["name"], config=config, studio_project_id=None, label_config=image_config(classes)
        )
        session.add(project)
        session.flush()
        project_id = project.id
    return {"project": project_id, **list_again(project_id)}


def add(project: int, uris: list[str]) -> dict[str, Any]:
    """Items that no listing names."""
    from backend.pool.catalog import NewItem, add_items

    with transaction() as session:
        add_items(session, project, (NewItem(uri) for uri in uris))
    return {}


def list_again(project: int) -> dict[str, Any]:
    """Bring the catalogue up to the pool's source, as a round's last step does."""
    with reading() as session:
        config = session.get_one(Project, project).settings
    started = time.perf_counter()
    listing = list_pool(config.pool, source_config(config))
    seen = None if listing is None else refresh(project, listing, config.pool.max_items, config.seed)
    return {"seconds": time.perf_counter() - started, "listed": {} if seen is None else vars(seen)}


def warm(project: int, count: int = 8) -> dict[str, Any]:
    """Load the encoder in Triton and run `count` minibatches through it."""
    with reading() as session:
        section = session.get_one(Project, project).settings.encoder
    encoder = open_encoder(section)
    for _ in range(count):
        encoder.encode(np.zeros((32, 32, 32, 3), np.uint8))
    spec = load(settings().home / "encoders", encoder.digest)
    return {"digest": spec.digest, "precision": spec.precision, "model": model_name(spec.name, spec.digest)}


def scan(project: int, **limits: float) -> dict[str, Any]:
    """Encode what is new. `limits` are fields of ScanConfig that are not at their default."""
    encoding.ScanConfig = partial(pipeline.ScanConfig, **limits)  # type: ignore[misc, assignment, attr-defined]
    started, cpu = time.perf_counter(), time.process_time()
    report = encoding.encode_new(project, lambda _done, _total: None)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": peak_bytes(),
        **report,
    }


def failures(project: int) -> dict[str, Any]:
    """Reason by address of the items that failed, and how many are encoded."""
    with reading() as session:
        of_project = Item.project_id == project
        failed = session.execute(sa.select(Item.uri, Item.failure).where(of_project, Item.state == "failed"))
        encoded = sa.select(sa.func.count()).select_from(Item).where(of_project, Item.state == "encoded")
        return {"failed": dict(failed.all()), "encoded": session.scalar(encoded)}


def peak_bytes() -> int:
    """The most memory that this process ever held; ru_maxrss would begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    from benchmarks.scan import rounds

    acts = {act.__name__: act for act in (make, add, list_again, warm, scan, failures, rounds.label, rounds.turn)}
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = acts[question.pop("do")](**question)
        print(f"{ANSWER}{json.dumps(answer, default=str)}", flush=True)


if __name__ == "__main__":
    main()

"""A project as some rounds leave it behind: images on disk, versions on a rising curve, a batch half labelled."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session

from backend.database import (
    Alert,
    Annotation,
    Batch,
    EncoderChange,
    Event,
    Item,
    Job,
    LogLine,
    ModelVersion,
    Pick,
    Project,
    Round,
    Worker,
    now,
    transaction,
)
from backend.learning.evaluate import wilson
from backend.learning.heads import Head
from backend.learning.layout import Axes
from backend.learning.registry import save_head
from backend.pool.catalog import item_key
from backend.rounds.arms import ArmCurve, keep
from backend.rounds.atlas import Map, map_path
from backend.rounds.unfold import Unfolded, unfolded_path
from backend.scoring.vectors import VectorStore
from backend.settings import settings
from tests.web.conftest import make_project

HOSTILE = "<script>alert(1)</script>"
HOSTILE_URI = "javascript:alert(document.cookie)//<img src=x onerror=alert(1)>"
SIGNED_URI = "https://user:hunter2@store.example/lake.jpg?X-Amz-Signature=deadbeef"
VERSIONS = 6
BATCH = 12
HOLDOUT = 150
TWICE = 24  # items that a second person labelled
NEAREST = 302  # the place of the labelled item that the first pick of a batch is most like


@dataclass(frozen=True)
class Played:
    """`picked` are the item ids of the published batch in rank order; the first four of them are labelled."""

    name: str
    project_id: int
    picked: list[int]
    labels: int
    items: int
    failed: int


def paint(folder: Path, count: int) -> list[str]:
    """Images of two kinds, below `folder`: one lighter at the top, one at the left."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    for index in range(count):
        ramp = np.linspace(40, 215, 240)[:, None] * np.ones((1, 320))
        grey = ramp if index % 2 else np.linspace(40, 215, 320)[None, :] * np.ones((240, 1))
        colour = random.uniform(0.3, 1.0, 3)
        pixels = (grey[..., None] * colour + random.normal(0, 6, (240, 320, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.jpg", quality=85)
    return [f"/data/local-files/?d={folder.name}/{index:03}.jpg" for index in range(count)]


def play(root: Path, hostile: bool = True) -> Played:
    """Write the project's rows; its images lie below `root`."""
    project = make_project()
    uris = paint(root / project.name, 40)
    uris += [f"{uris[place % 40]}&copy={place}" for place in range(960)]
    if hostile:
        uris[2], uris[3], uris[5] = HOSTILE_URI, HOSTILE, SIGNED_URI
    with transaction() as session:
        items = [_item(project, uri, place) for place, uri in enumerate(uris)]
        session.add_all(items)
        session.flush()
        picked = items[:BATCH]
        labelled = items[300 : 300 + VERSIONS * 60]
        session.add_all(_annotation(project, item) for item in labelled)
        session.add_all(_second(project, item, place) for place, item in enumerate(labelled[:TWICE]))
        for number in range(1, VERSIONS + 1):
            _round(session, project, number, picked, items, hostile)
        session.flush()
        session.add_all(_annotation(project, item) for item in picked[:4])
        _trouble(session, project, items, hostile)
        _written(session, project, hostile)
        _compared(session, project)
    failed = sum(item.state == "failed" for item in items)
    return Played(project.name, project.id, [item.id for item in picked], len(labelled) + 4, len(items), failed)


def _item(project: Project, uri: str, place: int) -> Item:
    item = Item(project_id=project.id, key=item_key(f"{uri}{place}"), uri=uri, task_id=project.id * 10_000 + place)
    item.state = "failed" if 700 <= place < 730 else "new" if place >= 950 else "encoded"
    if item.state == "failed":
        size = f"it has {place} bytes" if place % 3 else "it is a web page, perhaps a login page"
        item.failure = f"The image cannot be decoded: {size}."
    item.content_hash = f"{project.id:032x}{place:032x}" if item.state == "encoded" else None
    item.is_holdout = place % 5 == 0
    return item


def _annotation(project: Project, item: Item) -> Annotation:
    return Annotation(
        project_id=project.id,
        item_id=item.id,
        external_id=item.id,
        label="cat" if item.id % 2 else "dog",
        annotator="ann" if item.id % 3 else "bob",
        lead_time_s=2.0 + item.id % 5,
        created_at=now(),
        updated_at=now(),
    )


def _second(project: Project, item: Item, place: int) -> Annotation:
    """What somebody else said of it an hour before; now and then something else."""
    before = now() - dt.timedelta(hours=1)
    other = _annotation(project, item)
    other.external_id, other.annotator = 10_000_000 + item.id, "bob" if other.annotator == "ann" else "ann"
    other.label = other.label if place % 6 else "cat"
    other.created_at = other.updated_at = before
    return other


def _round(
    session: Session, project: Project, number: int, picked: list[Item], items: list[Item], hostile: bool
) -> None:
    began = now() - dt.timedelta(minutes=10 * (VERSIONS - number) + 1)
    round_ = Round(project_id=project.id, number=number, workflow_id=f"played:{project.id}:{number}", state="done")
    round_.trigger = "seed" if number == 1 else "new_labels"
    round_.created_at, round_.started_at = began, began
    round_.finished_at = began + dt.timedelta(seconds=2.4 + number)
    round_.report = {"version": f"v{number}", "is_promoted": True, "batch": f"v{number}+b{number}", "size": BATCH}
    session.add(round_)
    session.flush()
    right = round(HOLDOUT * (0.96 - 0.5 * (number + 1) ** -0.8))
    interval = wilson(right, HOLDOUT)
    metrics = {
        "source": "holdout" if number > 1 else "cross-validation",
        "labels": HOLDOUT,
        "accuracy": right / HOLDOUT,
        "accuracy_interval": {"low": interval.low, "high": interval.high},
        "macro_f1": right / HOLDOUT - 0.01,
        "log_loss": 0.9 - 0.1 * number,
        "calibration_error": 0.03,
    }
    version = ModelVersion(
        project_id=project.id,
        round_id=round_.id,
        number=number,
        encoder_digest="e" * 64,
        head_digest=f"{number:064x}",
        snapshot="",
        seed=0,
        metrics=metrics,
        lineage={"labels": 50 * number, "method": "propagation" if number < 3 else "logistic"},
        state="champion" if number == VERSIONS else "retired",
    )
    session.add(version)
    session.flush()
    batch = Batch(
        project_id=project.id,
        round_id=round_.id,
        number=number,
        version=f"v{number}+b{number}",
        model_version_id=version.id,
        strategy="margin_clusters",
        policy="auto: 300 labels are enough for margins.",
        state="published" if number == VERSIONS else "replaced",
        published_at=now() - dt.timedelta(minutes=1),
    )
    session.add(batch)
    session.flush()
    for rank, item in enumerate(picked if number == VERSIONS else items[number * 20 : number * 20 + BATCH]):
        first = round(0.52 + 0.01 * rank, 4)
        label = HOSTILE if hostile and rank == 1 else "cat"
        session.add(
            Pick(
                batch_id=batch.id,
                rank=rank,
                item_id=item.id,
                utility=None if rank % 5 == 0 else 1 - first,
                propensity=0.01 if rank % 5 == 0 else None,
                is_random_slice=rank % 5 == 0,
                nearest_id=items[NEAREST + rank].id if number > 1 else None,
                reason="drawn uniformly at random, to measure the model"
                if rank % 5 == 0
                else HOSTILE
                if hostile and rank == 2
                else "its two best classes are 4% apart",
                prediction={"label": label, "probabilities": {label: first, "dog": round(1 - first, 4)}},
            )
        )


def _trouble(session: Session, project: Project, items: list[Item], hostile: bool) -> None:
    message = f"Round 3 failed: Triton is away {HOSTILE if hostile else ''}"
    session.add(Alert(project_id=project.id, severity="warn", code="round_failed", message=message))
    session.add(Event(project_id=project.id, action="ANNOTATION_CREATED", task_ids=[items[0].task_id]))
    session.merge(Worker(executor_id="played-0", host="played", pid=4_711, seen_at=now() + dt.timedelta(days=1)))


def _written(session: Session, project: Project, hostile: bool) -> None:
    """A part of a scan and a change of the encoder, long over, and what they and the last round wrote."""
    job = Job(project_id=project.id, encoder_digest="e" * 64, first_item=1, last_item=900, items=900, state="done")
    job.worker, job.done, job.failed = "played-0", 900, 30
    change = EncoderChange(project_id=project.id, encoder={"name": "efficientnet-lite0"}, actor="configuration")
    change.state = "replaced"
    session.add_all([job, change])
    session.flush()
    wrote = {
        f"played:{project.id}:{VERSIONS}": [
            *(("info", "round.step", {"step": step}) for step in ("sync", "encode", "learn", "choose", "publish")),
            ("warning", "triton.left_out", {"url": "10.0.0.7:8001", "problem": HOSTILE if hostile else "no answer"}),
            ("info", "round.done", {"batch": f"v{VERSIONS}+b{VERSIONS}", "size": str(BATCH)}),
        ],
        f"job:{job.id}": [("info", "job.began", {"items": "900"}), ("info", "job.done", {"done": "900"})],
        f"encoder_change:{change.id}": [("info", "encoder_change.step", {"state": "checking"})],
    }
    for run, lines in wrote.items():
        for level, event, facts in lines:
            session.add(LogLine(run=run, at=now(), level=level, event=event, facts=facts))
            session.flush()


def _compared(session: Session, project: Project) -> None:
    """The random arm of a demo, and a backtest on the project's labels."""
    labels = [50 * number for number in range(1, VERSIONS + 1)]

    def arm(name: str, slope: float, gain: float | None = None) -> ArmCurve:
        mean = [0.9 - slope * (number + 1) ** -0.8 for number in range(1, VERSIONS + 1)]
        low, high = [one - 0.02 for one in mean], [one + 0.02 for one in mean]
        if gain is None:
            return ArmCurve(name, labels, mean, low, high)
        return ArmCurve(name, labels, mean, low, high, gain, gain - 0.01, gain + 0.01, 210.0)

    keep(session, project.id, "demo", "random", [arm("random", 0.55)], {"seeds": 5})
    facts = {"seeds": 10, "pool": 240, "test": 120}
    arms = [arm("margin_clusters", 0.35, 0.031), arm("margin", 0.4, 0.02), arm("random", 0.55, 0.0)]
    keep(session, project.id, "backtest", "random", arms, facts, "margin_clusters is better than random.")


def with_query(played: Played) -> int:
    """Let the project be one of the API, with a query that was answered; its number."""
    with transaction() as session:
        project = session.get_one(Project, played.project_id)
        project.config = {**project.config, "label_source": "api"}
        asked = {"budget": 3, "strategy": "margin", "parameters": {}}
        round_ = Round(project_id=project.id, number=VERSIONS + 1, workflow_id=f"query:{project.id}", state="done")
        round_.trigger, round_.query = "query", asked
        session.add(round_)
        session.flush()
        batch = Batch(
            project_id=project.id, round_id=round_.id, number=VERSIONS + 1, version="v6+b7", strategy="margin"
        )
        batch.state = "answered"
        session.add(batch)
        session.flush()
        for rank, item_id in enumerate(played.picked[:3]):
            session.add(Pick(batch_id=batch.id, rank=rank, item_id=item_id, utility=-0.1 * rank, reason="near"))
    return VERSIONS + 1


def with_answers(played: Played, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """Give the played versions heads, and the encoded items embeddings: they differ now and then."""
    random = np.random.default_rng(7)
    centre = random.normal(size=(12, len(classes))).astype(np.float32)
    with transaction() as session:
        hashes = [item.content_hash or "" for item in session.scalars(
            sa.select(Item).where(Item.project_id == played.project_id, Item.state == "encoded")
        )]  # fmt: skip
        for version in session.scalars(sa.select(ModelVersion).where(ModelVersion.project_id == played.project_id)):
            weights = centre + 0.3 * random.normal(size=centre.shape).astype(np.float32)
            flat = np.zeros(12, np.float32), np.ones(12, np.float32), weights, np.zeros(len(classes), np.float32)
            head = Head(classes, *flat, temperature=1.0)
            save_head(head)
            version.head_digest, version.encoder_digest = head.digest, f"{played.project_id:064x}"
    store = VectorStore(settings().home / "vectors", f"{played.project_id:064x}", 12)
    store.put(hashes, random.normal(size=(len(hashes), 12)).astype(np.float32))
    store.close()


def with_map(played: Played, classes: tuple[str, ...] = ("dog", "cat")) -> Map:
    """Draw a map of the encoded items: three clouds."""
    random = np.random.default_rng(3)
    with transaction() as session:
        query = (
            sa.select(Item.id).where(Item.project_id == played.project_id, Item.state == "encoded").order_by(Item.id)
        )
        ids = np.array(session.scalars(query).all(), np.int64)
    places = random.normal(size=(len(ids), 2)) + 5 * np.eye(2)[ids % 2] - 4 * (ids % 3 == 0)[:, None]
    drawn = Map(
        ids,
        places.astype(np.float32),
        (ids % len(classes)).astype(np.int32),
        random.random(len(ids)).astype(np.float32),
        (ids % 3 / 2).astype(np.float32),
        Axes(np.zeros(12, np.float32), np.zeros((12, 2), np.float32)),
        classes,
        "e" * 64,
        len(ids),
        "v6",
    )
    drawn.save(map_path(played.project_id))
    return drawn


def with_umap(played: Played, drawn: Map) -> Unfolded:
    """Let a worker have unfolded the map, but for its last ten items."""
    random = np.random.default_rng(5)
    ids = random.permutation(drawn.ids[:-10])
    angles = 2 * np.pi * (ids % 6) / 6 + random.normal(0, 0.12, len(ids))
    places = (np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.normal(4, 0.4, (len(ids), 1))).astype("f4")
    axes = Axes(np.zeros(12, np.float32), np.zeros((12, 3), np.float32))
    made = Unfolded(ids, places, np.zeros((len(ids), 3), np.float16), axes, drawn.encoder_digest, len(ids))
    made.save(unfolded_path(played.project_id))
    return made

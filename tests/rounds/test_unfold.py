"""The map's second form: made once, brought up to date without another one, and never in anybody's way."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.database import Item, transaction
from backend.errors import UmapFailed
from backend.learning import umap_run
from backend.pool.catalog import item_key
from backend.rounds import atlas, unfold
from backend.rounds.encoding import Embeddings
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from tests.web.played import Played, play, with_answers

Rows = NDArray[np.float32]


@pytest.fixture
def played(home: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    prepare_database()
    played = play(home / "data", hostile=False)
    with_answers(played)
    digest = f"{played.project_id:064x}"
    stored = Embeddings(
        SimpleNamespace(digest=digest, dims=12),  # type: ignore[arg-type]
        VectorStore(home / "vectors", digest, 12),
    )
    for module in (atlas, unfold):
        monkeypatch.setattr(module, "open_embeddings", lambda _project: stored)
    return played


def come(played: Played, count: int, first: int = 0) -> NDArray[np.float32]:
    """New items are encoded and drawn; their embeddings."""
    names = [f"{place + first:064x}" for place in range(1, count + 1)]
    rows = np.random.default_rng(first).normal(size=(count, 12)).astype(np.float32)
    with transaction() as session:
        session.add_all(
            Item(project_id=played.project_id, key=item_key(name), uri=name, state="encoded", content_hash=name)
            for name in names
        )
    atlas.open_embeddings(None).store.put(names, rows)  # type: ignore[arg-type]
    atlas.draw(played.project_id)
    return rows


def known(played: Played) -> unfold.Unfolded:
    return unfold.Unfolded.load(unfold.unfolded_path(played.project_id))


def test_every_item_of_the_map_has_a_place_and_new_ones_come_beside_their_nearest(played: Played) -> None:
    fitted: list[int] = []

    def first_two(rows: Rows, _folder: Path, _stopping: threading.Event) -> Rows:
        fitted.append(len(rows))
        return rows[:, :2].copy()

    drawn = atlas.draw(played.project_id)
    assert drawn is not None
    unfolder = unfold.Unfolder(threading.Event(), first_two)

    unfolder()
    unfolder()
    made = known(played)
    come(played, 30)
    unfolder()
    grown = known(played)
    come(played, len(drawn.ids) // 2, first=1_000)
    unfolder()

    assert set(made.ids) == set(drawn.ids)
    assert made.rows.shape == (len(drawn.ids), unfold.AXES)
    assert len(grown.ids) == len(drawn.ids) + 30
    assert grown.places[: len(made.ids)].tolist() == made.places.tolist()
    distances = np.linalg.norm(made.rows.astype(float) - grown.rows[-1].astype(float), axis=1)
    assert grown.places[-1] == pytest.approx(made.places[np.argsort(distances)[:5]].mean(axis=0), abs=0.05)
    assert fitted == [len(drawn.ids), len(drawn.ids) + 30 + len(drawn.ids) // 2]
    assert len(known(played).ids) == fitted[1]
    assert not list(unfold.unfolded_path(played.project_id).parent.glob("*.run"))


def test_what_failed_is_not_tried_in_every_round_and_costs_nothing_else(played: Played) -> None:
    tried: list[int] = []

    def fail(rows: Rows, folder: Path, _stopping: threading.Event) -> Rows:
        tried.append(len(rows))
        raise UmapFailed(problem="MemoryError", log=folder)

    drawn = atlas.draw(played.project_id)
    assert drawn is not None
    unfolder = unfold.Unfolder(threading.Event(), fail)

    unfolder()
    come(played, 10)
    unfolder()
    come(played, len(drawn.ids) // 8, first=1_000)
    unfolder()

    assert tried == [len(drawn.ids), len(drawn.ids) + 10 + len(drawn.ids) // 8]
    assert not unfold.unfolded_path(played.project_id).exists()


def test_a_worker_that_stops_takes_the_child_with_it(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()

    made = umap_run.unfold(np.zeros((100, 3), np.float32), tmp_path, stopping)

    assert made is None


@pytest.mark.skipif(
    not (umap_run.is_there() and os.environ.get("NEXTBATCH_UMAP")), reason="takes a minute; set NEXTBATCH_UMAP=1"
)
def test_umap_brings_together_what_is_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    of = random.integers(0, 5, 600)
    rows = (10 * np.eye(5, 20)[of] + random.normal(size=(600, 20))).astype(np.float32)

    places = umap_run.unfold(rows, tmp_path, threading.Event())

    assert places is not None
    nearest = np.linalg.norm(places[:, None] - places[None], axis=2).argsort(axis=1)[:, 1:6]
    assert (of[nearest] == of[:, None]).mean() > 0.99

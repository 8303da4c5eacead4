"""The map that a round draws: every encoded item, what the model says of it, and axes that stay."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa

from backend.database import Item, ModelVersion, reading, transaction
from backend.errors import MapUnreadable
from backend.learning import registry
from backend.pool.catalog import item_key
from backend.rounds import atlas
from backend.rounds.encoding import Embeddings
from backend.rounds.queue import prepare_database
from backend.scoring.vectors import VectorStore
from tests.web.played import Played, play, with_answers


@pytest.fixture
def played(home: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    prepare_database()
    played = play(home / "data", hostile=False)
    with_answers(played)
    digest = f"{played.project_id:064x}"
    store = VectorStore(home / "vectors", digest, 12)
    spec = SimpleNamespace(digest=digest, dims=12)
    monkeypatch.setattr(atlas, "open_embeddings", lambda _project: Embeddings(spec, store))  # type: ignore[arg-type]
    return played


def test_every_encoded_item_is_on_the_map_with_what_the_champion_says(played: Played) -> None:
    drawn = atlas.draw(played.project_id)

    assert drawn is not None
    with reading() as session:
        items = session.scalars(sa.select(Item).where(Item.state == "encoded").order_by(Item.id)).all()
        champion = session.scalars(sa.select(ModelVersion).where(ModelVersion.state == "champion")).one()
    head = registry.load_head(champion)
    store = atlas.open_embeddings(None).store  # type: ignore[arg-type]
    probabilities = head.predict(store.gather([item.content_hash or "" for item in items]))
    best = np.sort(probabilities, axis=1)
    assert drawn.ids.tolist() == [item.id for item in items]
    assert drawn.classes.tolist() == probabilities.argmax(axis=1).tolist()
    assert drawn.doubts == pytest.approx(1 - (best[:, -1] - best[:, -2]), abs=1e-6)
    assert (drawn.names, drawn.version) == (head.classes, "v6")


def test_the_map_is_read_back_and_its_items_stay_where_they_were(played: Played) -> None:
    first = atlas.draw(played.project_id)
    with transaction() as session:
        new = Item(project_id=played.project_id, key=item_key("new"), uri="new", state="encoded", content_hash="f" * 64)
        session.add(new)
    atlas.open_embeddings(None).store.put(["f" * 64], np.full((1, 12), 30, np.float32))  # type: ignore[arg-type]

    atlas.refresh(played.project_id)

    assert first is not None
    again = atlas.Map.load(atlas.map_path(played.project_id))
    assert len(again.ids) == len(first.ids) + 1
    assert again.places[:-1] == pytest.approx(first.places, abs=1e-5)
    assert (again.strangeness[-1], again.strangeness.max()) == (1, 1)
    assert (again.strangeness == 0).sum() >= 128  # what is labelled is not strange


def test_an_item_that_failed_stays_where_it_was_and_one_that_never_was_there_does_not_come(played: Played) -> None:
    first = atlas.draw(played.project_id)
    assert first is not None
    lost = int(first.ids[40])
    with transaction() as session:
        session.get_one(Item, lost).state = "failed"
        session.get_one(Item, lost).content_hash = None
        session.add(Item(project_id=played.project_id, key=item_key("bad"), uri="bad", state="failed"))

    once, twice = atlas.draw(played.project_id), atlas.draw(played.project_id)

    assert once is not None
    assert twice is not None
    for drawn in (once, twice):
        assert drawn.ids.tolist() == first.ids.tolist()
        assert drawn.places[40].tolist() == first.places[40].tolist()
        assert drawn.names[drawn.classes[40]] == first.names[first.classes[40]]


def test_a_damaged_map_is_refused_and_drawn_again(played: Played) -> None:
    path = atlas.map_path(played.project_id)
    path.parent.mkdir()
    path.write_bytes(b"no map")

    with pytest.raises(MapUnreadable, match="next round draws it again"):
        atlas.Map.load(path)
    atlas.refresh(played.project_id)

    assert len(atlas.Map.load(path).ids) > 0

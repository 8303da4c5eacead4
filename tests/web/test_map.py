"""The map's points: what the bytes say is what the database says."""

from pathlib import Path

import numpy as np
import pytest

from backend.database import Item, Project, transaction
from backend.learning import umap_run
from backend.rounds import hand
from backend.rounds.atlas import map_path
from backend.rounds.queue import prepare_database
from backend.web.app import create_app
from backend.web.views.atlas import STATES
from tests.web.played import BATCH, VERSIONS, Played, play, with_map, with_umap


@pytest.fixture
def played(home: Path) -> Played:
    prepare_database()
    return play(home / "data", hostile=False)


def test_the_bytes_hold_every_item_with_its_place_class_round_and_state(played: Played) -> None:
    drawn = with_map(played)
    with transaction() as session:
        hand.mark(session, session.get_one(Project, played.project_id), [int(drawn.ids[-1])], "never", "ann")
    client = create_app().test_client()

    answer = client.get(f"/projects/{played.name}/map/points")
    again = client.get(f"/projects/{played.name}/map/points", headers={"If-None-Match": answer.headers["ETag"]})

    n = len(drawn.ids)
    assert len(answer.data) == 8 + 15 * n
    assert answer.data[:4] + answer.data[4:8] == b"NBM2" + n.to_bytes(4, "little")
    x, y = (np.frombuffer(answer.data, "<i2", n, 8 + at * n).astype(float) for at in (4, 6))
    classes, rounds = (np.frombuffer(answer.data, "<u2", n, 8 + at * n) for at in (8, 10))
    states = [STATES[one] for one in np.frombuffer(answer.data, "u1", n, 8 + 13 * n)]
    strange = np.frombuffer(answer.data, "u1", n, 8 + 14 * n)
    assert strange == pytest.approx(255 * drawn.strangeness, abs=0.5)
    assert np.frombuffer(answer.data, "<u4", n, 8).tolist() == drawn.ids.tolist()
    assert np.corrcoef(x, drawn.places[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(y, drawn.places[:, 1])[0, 1] == pytest.approx(1, abs=1e-6)
    assert max(np.abs(x).max(), np.abs(y).max()) == 32_767
    assert classes.tolist() == drawn.classes.tolist()  # people labelled as the model does here
    assert rounds[drawn.ids == played.picked[0]].tolist() == [VERSIONS]
    assert states.count("batch") == BATCH - 4
    assert states.count("labelled") + states.count("holdout") == played.labels
    assert states[-1] == "never"
    assert (again.status_code, again.data) == (304, b"")


def test_failed_items_are_crossed_where_they_were_and_the_others_counted_with_a_retry(played: Played) -> None:
    drawn = with_map(played)
    with transaction() as session:
        session.get_one(Item, int(drawn.ids[-1])).state = "failed"
    client = create_app().test_client()

    page = client.get(f"/projects/{played.name}/map").text
    points = client.get(f"/projects/{played.name}/map/points").data

    states = np.frombuffer(points, "u1", len(drawn.ids), 8 + 13 * len(drawn.ids))
    assert STATES[states[-1]] == "failed"
    assert [STATES[one] for one in states].count("failed") == 1
    told = " ".join(page.split())
    assert (
        f"{played.failed + 1} items failed. 1 had an embedding before and is crossed on the map, where it was last."
        in told
    )
    assert f"{played.failed} never had one here and have no place on it." in told
    assert page.count("/health/retry") == 3  # two kinds of damage, and one without a reason


def test_the_form_by_umap_comes_as_bytes_once_a_worker_made_it(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, client = with_map(played), create_app().test_client()
    monkeypatch.setattr(umap_run, "is_there", lambda: True)
    waits = client.get(f"/projects/{played.name}/map").text
    monkeypatch.setattr(umap_run, "is_there", lambda: False)
    missing = client.get(f"/projects/{played.name}/map").text
    none = client.get(f"/projects/{played.name}/map/umap").status_code
    made = with_umap(played, drawn)

    ready = client.get(f"/projects/{played.name}/map").text
    answer = client.get(f"/projects/{played.name}/map/umap")

    n = len(made.ids)
    assert ("when it finds time" in waits, "nextbatch[umap]" in missing, none) == (True, True, 404)
    assert 'id="places"' in ready
    assert 'id="places"' not in waits + missing
    assert "nextbatch[umap]" not in ready
    assert answer.data[:8] == b"NBU1" + n.to_bytes(4, "little")
    assert len(answer.data) == 8 + 8 * n
    assert np.frombuffer(answer.data, "<u4", n, 8).tolist() == made.ids.tolist()
    for at, column in enumerate(made.places.T):
        shown = np.frombuffer(answer.data, "<i2", n, 8 + (4 + 2 * at) * n)
        assert np.corrcoef(shown, column)[0, 1] == pytest.approx(1, abs=1e-6)


def test_without_a_map_the_page_says_when_there_will_be_one(played: Played) -> None:
    client = create_app().test_client()

    page, points = (client.get(f"/projects/{played.name}/map{end}") for end in ("", "/points"))

    assert page.status_code == 200
    assert "A round draws it" in page.text
    assert points.status_code == 404


def test_a_classs_name_is_never_markup(played: Played) -> None:
    drawn = with_map(played)
    object.__setattr__(drawn, "names", ("</canvas><script>alert(1)</script>", "'\""))
    drawn.save(map_path(played.project_id))

    page = create_app().test_client().get(f"/projects/{played.name}/map")

    assert "<script>alert" not in page.text

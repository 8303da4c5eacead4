"""What people do on the pages: it takes a session and its token, it leaves a line, and the next round respects it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from backend.database import (
    Batch,
    Deed,
    Item,
    Mark,
    ModelChange,
    ModelVersion,
    Pick,
    Project,
    Round,
    reading,
    transaction,
)
from backend.rounds import hand
from backend.rounds.batch import left_over, put_first
from backend.rounds.comparison import answers
from backend.rounds.queue import prepare_database
from backend.settings import settings
from backend.web import sessions
from backend.web.app import create_app
from backend.web.views.comparison import MOST_ITEMS
from tests.web.played import BATCH, Played, play, with_answers
from tests.web.test_dashboard import Document

OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def played(home: Path) -> Played:
    prepare_database()
    sessions.signing_key.cache_clear()
    return play(home / "data", hostile=False)


@pytest.fixture
def client(played: Played) -> Iterator[FlaskClient]:
    with create_app().test_client() as client:
        yield client


def send(client: FlaskClient, path: str, **fields: object) -> Any:
    """The form as a browser sends it from our own page."""
    with client.session_transaction() as session:
        session[sessions.FIELD] = "the-token"
    return client.post(path, data={"token": "the-token", **fields}, headers=OURS)


def deeds(played: Played) -> list[tuple[str, str]]:
    with reading() as session:
        rows = session.scalars(sa.select(Deed).where(Deed.project_id == played.project_id).order_by(Deed.id))
        return [(one.action, one.actor) for one in rows]


def ranked(played: Played) -> list[int]:
    with reading() as session:
        newest = sa.select(sa.func.max(Batch.id)).where(Batch.project_id == played.project_id).scalar_subquery()
        return list(session.scalars(sa.select(Pick.item_id).where(Pick.batch_id == newest).order_by(Pick.rank)))


def test_every_form_refuses_without_its_sessions_token(played: Played, client: FlaskClient) -> None:
    rules = [rule for rule in client.application.url_map.iter_rules() if "POST" in (rule.methods or ())]
    forms = [rule for rule in rules if rule.endpoint.startswith("dashboard.") and rule.endpoint != "dashboard.log_in"]

    for rule in forms:
        path = rule.rule.replace("<name>", played.name).replace("<int:number>", "1")
        for fields in ({}, {"token": ""}, {"token": "guessed"}):
            assert client.post(path, data=fields, headers=OURS).status_code == 403, path

    assert len(forms) >= 7
    assert deeds(played) == []


def test_what_is_put_first_leads_the_next_batch_and_what_is_excluded_never_comes(
    played: Played, client: FlaskClient
) -> None:
    last, away = played.picked[-1], played.picked[6]

    first = send(client, f"/projects/{played.name}/batch/items", deed=f"first {last}")
    never = send(client, f"/projects/{played.name}/batch/items", deed=f"never {away}")

    with reading() as session:
        wished = hand.wishes(session, played.project_id, needs_task=True)
        kept = [pick for pick in left_over(session, played.project_id) if pick.item_id not in wished.never]
    chosen = [pick.item_id for pick in put_first(kept, dict.fromkeys(wished.first, "by hand"))]
    page = Document(client.get(f"/projects/{played.name}/batch").text)
    assert (first.status_code, never.status_code) == (303, 303)
    assert chosen[0] == last
    assert away not in chosen
    assert len(chosen) == len(set(chosen)) == BATCH - 4 - 1
    assert "first in the next batch" in page.text
    assert "never again" in page.text
    assert deeds(played) == [("first", "dashboard"), ("never", "dashboard")]


def test_a_decision_is_taken_back(played: Played, client: FlaskClient) -> None:
    item = played.picked[5]
    send(client, f"/projects/{played.name}/batch/items", deed=f"never {item}")

    send(client, f"/projects/{played.name}/batch/items", deed=f"free {item}")

    with reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Mark)) == 0
    assert [action for action, _ in deeds(played)] == ["never", "unmark"]


def test_ranks_that_were_changed_by_hand_hold_and_the_others_close_up(store: str, home: Path) -> None:
    sessions.signing_key.cache_clear()
    played = play(home / "data", hostile=False)
    before = ranked(played)
    form = {f"rank-{item}": at + 1 for at, item in enumerate(before)} | {f"rank-{before[9]}": 2}

    answer = send(
        create_app().test_client(), f"/projects/{played.name}/batch/items", deed="order", number=6, start=0,
        shown=",".join(map(str, before)), **form,
    )  # fmt: skip

    assert answer.status_code == 303, store
    assert ranked(played) == [before[0], before[9], *before[1:9], *before[10:]]
    assert [action for action, _ in deeds(played)] == ["move"]


def test_no_rank_moves_while_a_round_makes_the_next_batch(played: Played, client: FlaskClient) -> None:
    before = ranked(played)
    with transaction() as session:
        newest = Round(project_id=played.project_id, number=7, workflow_id="w7", state="running", step="publish")
        session.add(newest)
    form = {f"rank-{item}": at + 1 for at, item in enumerate(before)} | {f"rank-{before[9]}": 2}

    answer = send(
        client, f"/projects/{played.name}/batch/items", deed="order", number=6, start=0,
        shown=",".join(map(str, before)), **form,
    )  # fmt: skip

    assert answer.status_code == 400
    assert "round 7 is making the next batch" in answer.text
    assert ranked(played) == before


def test_items_of_the_map_come_first_and_a_round_is_asked_for(played: Played, client: FlaskClient) -> None:
    with reading() as session:
        pool = list(session.scalars(sa.select(Item.id).where(Item.task_id % 10_000 >= 900).order_by(Item.id)))[:3]

    send(client, f"/projects/{played.name}/map/items", items=",".join(map(str, pool)), deed="first")
    send(client, f"/projects/{played.name}/map/items", items=",".join(map(str, pool)), deed="like")

    with reading() as session:
        wished = hand.wishes(session, played.project_id, needs_task=True)
        asked = session.scalars(sa.select(Round).where(Round.state == "waiting")).one()
    assert wished.first == tuple(pool)
    assert asked.like["items"] == pool


def test_items_of_another_project_are_nobodys_here(played: Played, client: FlaskClient) -> None:
    with transaction() as session:
        other = Project(name="other", config={"name": "other"}, label_config="")
        session.add(other)

    answer = send(client, "/projects/other/batch/items", deed=f"never {played.picked[0]}")

    assert answer.status_code == 400
    with reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Mark)) == 0


def test_failed_items_of_one_reason_are_tried_again(played: Played, client: FlaskClient) -> None:
    reason = "The image cannot be decoded: it is a web page, perhaps a login page."

    send(client, f"/projects/{played.name}/health/retry", reason=reason)

    with reading() as session:
        states = dict(session.execute(sa.select(Item.state, sa.func.count()).group_by(Item.state)).all())
        waiting = session.scalars(sa.select(Round).where(Round.state == "waiting")).all()
    assert states["failed"] == 20
    assert states["new"] == 60
    assert len(waiting) == 1
    assert [action for action, _ in deeds(played)] == ["retry"]


def test_a_version_is_promoted_and_rolled_back_after_a_question(played: Played, client: FlaskClient) -> None:
    with_answers(played)

    question = Document(client.get(f"/projects/{played.name}/models/change?to=v4").text)
    send(client, f"/projects/{played.name}/models/promote", version="v4")
    stale = send(client, f"/projects/{played.name}/models/rollback", version="v1")

    with reading() as session:
        champions = session.scalars(sa.select(ModelVersion).where(ModelVersion.state == "champion")).all()
        books = session.scalars(sa.select(ModelChange)).all()
    assert "v6 answers now" in " ".join(question.text.split())
    assert [one.number for one in champions] == [4]
    assert [(one.action, one.actor) for one in books] == [("promote", "dashboard")]
    assert stale.status_code == 400


def test_a_person_logs_in_acts_under_a_name_and_logs_out(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_USERNAME", "ann")
    monkeypatch.setenv("NEXTBATCH_PASSWORD", "correct horse")
    settings.cache_clear()
    client, loop = create_app().test_client(), f"/projects/{played.name}"

    asked = client.get(loop, headers={"Accept": "text/html"})
    wrong = client.post("/login", data={"username": "ann", "password": "guess"}, headers=OURS)
    entered = client.post("/login", data={"username": "ann", "password": "correct horse", "onward": loop}, headers=OURS)
    elsewhere = client.post(
        "/login", data={"username": "ann", "password": "correct horse", "onward": "//evil.example"}, headers=OURS
    )
    opened = client.get(loop)
    send(client, f"{loop}/batch/items", deed=f"first {played.picked[5]}")
    send(client, "/logout")
    after = client.get(loop)

    assert (asked.status_code, wrong.status_code, opened.status_code, after.status_code) == (401, 401, 200, 401)
    assert entered.headers["Location"] == loop
    assert elsewhere.headers["Location"] == "/projects"
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "correct horse" not in cookie
    assert deeds(played) == [("first", "ann (dashboard)")]


def test_a_session_ends_when_the_password_changes(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_USERNAME", "ann")
    monkeypatch.setenv("NEXTBATCH_PASSWORD", "old")
    settings.cache_clear()
    client = create_app().test_client()
    client.post("/login", data={"username": "ann", "password": "old"}, headers=OURS)
    before = client.get("/projects").status_code

    monkeypatch.setenv("NEXTBATCH_PASSWORD", "new")
    settings.cache_clear()

    assert (before, client.get("/projects").status_code) == (200, 401)


def test_versions_stand_side_by_side_with_the_items_they_differ_on(played: Played, client: FlaskClient) -> None:
    with_answers(played)

    page = Document(client.get(f"/projects/{played.name}/models/compare?one=v6&other=v5").text)

    with reading() as session:
        found = answers(*[session, *session.scalars(sa.select(ModelVersion).where(ModelVersion.number.in_((5, 6))))])
    differ = int((found.new.argmax(1) != found.current.argmax(1)).sum())
    assert len(found.holdout) > 50
    assert differ > 0
    assert f"{differ} of {len(found.holdout)}" in page.text
    assert [tag for tag, _ in page.elements].count("img") == min(differ, MOST_ITEMS)


def test_a_round_that_waits_is_cancelled(played: Played, client: FlaskClient) -> None:
    send(client, f"/projects/{played.name}/rounds")

    send(client, f"/projects/{played.name}/rounds/7/cancel")
    missing = send(client, f"/projects/{played.name}/rounds/70/cancel")

    with reading() as session:
        states = list(session.scalars(sa.select(Round.state).where(Round.number == 7)))
    assert states == ["cancelled"]
    assert missing.status_code == 404
    assert deeds(played) == [("cancel", "dashboard")]

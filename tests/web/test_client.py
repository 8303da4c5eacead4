"""The Python client against the real service: every answer typed, every refusal an error that says why."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend import tokens
from backend.client import Client, Label, Query, Round
from backend.database import Batch as BatchRow
from backend.database import Item as ItemRow
from backend.database import Pick as PickRow
from backend.database import Round as RoundRow
from backend.database import now, transaction
from backend.errors import QueryFailed, ServiceRefused, ServiceSilent
from backend.processes import free_port
from tests.web.conftest import Web, serving
from tests.web.played import BATCH, VERSIONS, Played, play

HEAVY = {"torch", "flask", "label_studio_sdk", "sqlalchemy", "pydantic", "numpy", "dbos"}
MOST_MODULES = 60  # beside those of an interpreter that does nothing; httpx would bring 250 more, and 0.15 s


@pytest.fixture(scope="module")
def played(sqlite_home: Path) -> Played:
    return play(sqlite_home / "data")


@pytest.fixture(scope="module")
def web(sqlite_home: Path, played: Played) -> Iterator[Web]:
    with serving(sqlite_home, NEXTBATCH_USERNAME="ann", NEXTBATCH_PASSWORD="sécret") as running:
        yield running


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with Client(web.url, "ann", "sécret") as opened:
        yield opened


def test_it_reads_what_a_round_a_job_and_a_change_of_the_encoder_wrote(client: Client, played: Played) -> None:
    job = next(client.jobs(played.name))
    change = client._at.get(f"/projects/{played.name}")["encoder"]["change"]

    of_round = [line.event for line in client.log(played.name, VERSIONS)]
    of_job = [line.facts for line in client.log(played.name, job.id, of="jobs")]
    of_change = [line.event for line in client.log(played.name, change["id"], of="encoder-changes")]

    assert (job.state, job.done, job.failed) == ("done", 900, 30)
    assert (of_round[0], of_round[-1], len(of_round)) == ("round.done", "round.step", 7)
    assert of_job == [{"done": "900"}, {"items": "900"}]
    assert of_change == ["encoder_change.step"]
    with pytest.raises(ServiceRefused, match="job 4711"):
        list(client.log(played.name, 4711, of="jobs"))


def test_it_reads_a_project_from_its_state_to_its_items(client: Client, played: Played) -> None:
    project = client.project(played.name)
    items = list(client.items(played.name))
    picks = list(client.picks(played.name, next(client.batches(played.name)).number))
    models = list(client.models(played.name))

    assert client.project_names() == [played.name]
    assert project.counts.labelled + project.counts.holdout == played.labels
    assert len({item.id for item in items}) == played.items
    assert len(list(client.items(played.name, "failed"))) == played.failed
    assert [pick.item_id for pick in picks] == played.picked
    assert len(picks) == BATCH
    assert all(pick.probabilities and pick.reason for pick in picks)
    assert [model.number for model in models] == list(range(VERSIONS, 0, -1))
    assert all(model.measure and model.measure.low < model.measure.accuracy < model.measure.high for model in models)


def test_it_asks_for_a_round_and_follows_it_to_its_end(client: Client, played: Played) -> None:
    told: list[Round] = []
    asked = client.ask_for_round(played.name)
    mine = sa.update(RoundRow).where(RoundRow.project_id == played.project_id, RoundRow.number == asked.number)
    turns = itertools.chain(
        [{"state": "running", "step": "encode", "progress": {"done": 1, "total": 2}, "started_at": now()}],
        itertools.repeat({"state": "done", "step": "", "progress": {}, "report": {"size": 3}, "finished_at": now()}),
    )

    def work(seen: Round) -> None:
        """What a worker would do between two looks."""
        told.append(seen)
        with transaction() as session:
            session.execute(mine.values(next(turns)))

    ended = client.wait_for_round(played.name, asked.number, progress=work)

    assert [one.state for one in told] == ["waiting", "running", "done"]
    assert (told[1].step, told[1].done, told[1].total) == ("encode", 1, 2)
    assert ended.report == {"size": 3}
    assert ended.started_at is not None
    assert ended.started_at.tzinfo is not None


def test_it_does_not_wait_for_ever(client: Client, played: Played) -> None:
    asked = client.ask_for_round(played.name)

    with pytest.raises(ServiceSilent, match=f"round {asked.number} is still waiting"):
        client.wait_for_round(played.name, asked.number, timeout_s=0)


def test_a_refusal_says_why(web: Web, client: Client) -> None:
    with pytest.raises(ServiceRefused, match="no project 'no where'"):
        client.project("no where")
    with Client(web.url, "ann", "wrong") as stranger, pytest.raises(ServiceRefused, match="401"):
        stranger.project_names()
    with Client(f"http://127.0.0.1:{free_port()}") as lost, pytest.raises(ServiceSilent, match="nextbatch serve"):
        lost.project_names()


def test_importing_it_brings_nothing_heavy_and_few_modules_at_all() -> None:
    program = "import sys; bare = set(sys.modules); from backend.client import Client; print(*set(sys.modules) - bare);"
    program += " Client('http://localhost').close(); print(*sys.modules)"

    imported, used = (
        set(line.split())
        for line in subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
        ).stdout.splitlines()
    )

    assert "httpx" in used
    assert {"httpx", "dataclasses", "inspect", "hashlib"} & imported == set()
    assert {name.partition(".")[0] for name in used} & HEAVY == set()
    assert len(imported) < MOST_MODULES


def test_it_pushes_asks_and_labels_and_selects_in_one_call(client: Client) -> None:
    uris = [f"https://example.org/{number}.jpg" for number in range(5)]
    project = client.make_project("shop", labels=["cat", "dog"])
    pushed = client.push("shop", [*uris, {"uri": uris[0], "shelf": 1}, "gopher://x"])
    asked = client.query("shop", 2, "margin")
    stored = client.label("shop", [Label(uris[0], "cat", "ann"), Label(uris[1], None)])
    cancelled = client.cancel("shop", asked.number)
    told: list[Query] = []

    def answer(seen: Query) -> None:
        """What a worker would do between two looks."""
        told.append(seen)
        with transaction() as session:
            mine = (RoundRow.number == seen.number, RoundRow.state == "waiting", RoundRow.trigger == "query")
            round_ = session.scalars(sa.select(RoundRow).where(*mine)).one_or_none()
            if round_ is None:
                return
            items = session.scalars(sa.select(ItemRow.id).where(ItemRow.project_id == round_.project_id)).all()
            values = {"number": 1, "version": "v0+b1", "strategy": "max_herding", "state": "answered"}
            batch = BatchRow(project_id=round_.project_id, round_id=round_.id, **values)
            session.add(batch)
            session.flush()
            for rank, item_id in enumerate(items[:3]):
                session.add(PickRow(batch_id=batch.id, rank=rank, item_id=item_id, utility=1 - rank, reason="far"))
            round_.state = "done"

    picks = client.select(uris, 3, progress=answer)

    assert (project.name, project.classes) == ("shop", 2)
    assert (pushed.added, pushed.known, pushed.refused) == (5, 1, 1)
    assert (stored.new, cancelled.state) == (2, "cancelled")
    assert client.wait_for_query("shop", asked.number).has_ended
    assert [one.state for one in told] == ["waiting", "done"]
    assert (told[1].chosen, told[1].size) == ("max_herding", 3)
    assert [(pick.rank, pick.uri, pick.utility) for pick in picks] == [(n, uris[n], 1 - n) for n in range(3)]


def test_a_failed_query_is_an_error_that_says_why(client: Client) -> None:
    def fail(seen: Query) -> None:
        with transaction() as session:
            mine = sa.update(RoundRow).where(RoundRow.number == seen.number, RoundRow.trigger == "query")
            session.execute(mine.values(state="failed", failure="Triton is away"))

    with pytest.raises(QueryFailed, match="Triton is away"):
        client.select(["https://example.org/lost.jpg"], 1, progress=fail)


def test_a_token_opens_what_its_scope_is(web: Web) -> None:
    with transaction() as session:
        token = tokens.create(session, "reader", "read")

    with Client(web.url, token=token) as reader:
        assert "shop" in reader.project_names()
        with pytest.raises(ServiceRefused, match="--scope label"):
            reader.query("shop", 1)

"""What runs write is kept: the last lines of each, without secrets, and never at the cost of the run."""

import datetime as dt
import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from backend import database, logs
from backend.database import LogLine, reading
from backend.rounds import journal
from tests.conftest import forget_process_state

RUN = "round:3:7"
log = structlog.get_logger()


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where lines go besides."""
    handlers, level, out = logging.root.handlers[:], logging.root.level, io.StringIO()
    logs.take_lines()
    logs.configure(out)
    yield out
    logging.root.handlers, logging.root.level = handlers, level
    structlog.reset_defaults()
    logs.take_lines()


def kept() -> list[LogLine]:
    with reading() as session:
        return list(session.scalars(sa.select(LogLine).order_by(LogLine.id)))


@pytest.mark.usefixtures("store", "out")
def test_lines_of_a_run_are_kept_in_order_from_threads_and_libraries_too() -> None:
    with logs.about(project=3, round=7, run=RUN):
        log.info("encode.done", encoded=12, speed={"fetch": 3})
        logging.getLogger("some.library").warning("slow %s", "answer")
        with ThreadPoolExecutor(1, initializer=logs.carried()) as pool:
            pool.submit(log.warning, "scan.unexpected").result()
    log.info("worker.started")

    written = journal.flush()

    lines = kept()
    assert written == len(lines) == 3
    assert [line.event for line in lines] == ["encode.done", "slow answer", "scan.unexpected"]
    assert [line.level for line in lines] == ["info", "warning", "warning"]
    assert {line.run for line in lines} == {RUN}
    assert lines[0].facts == {"encoded": "12", "speed": '{"fetch": 3}'}


@pytest.mark.usefixtures("store", "out")
def test_the_last_lines_of_a_run_are_kept_and_the_newest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_OF_A_RUN", 5)
    monkeypatch.setattr(journal, "MOST", 8)

    for run in ("job:1", "job:2", "job:3"):
        with logs.about(run=run):
            for number in range(7):
                log.info("step", number=number)
        journal.flush()

    lines = kept()
    assert [line.run for line in lines] == ["job:2"] * 3 + ["job:3"] * 5
    assert [line.facts["number"] for line in lines[3:]] == ["2", "3", "4", "5", "6"]


@pytest.mark.usefixtures("store")
def test_no_secret_is_kept(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-api-key")
    forget_process_state()
    logs.configure(out)
    problem = "401 of s3://ann:hunter2@store/x.jpg?X-Amz-Signature=deadbeef with studio-api-key\0"

    with logs.about(run=RUN):
        log.error("fetch.failed", problem=problem, access_token="t0ps3cret", password="pw")
    journal.flush()

    (line,) = kept()
    told = f"{line.event} {line.facts}"
    assert not [one for one in ("hunter2", "deadbeef", "studio-api-key", "t0ps3cret", "'pw'") if one in told]
    assert "401 of s3://store/x.jpg with …" in line.facts["problem"]


@pytest.mark.usefixtures("store", "out")
def test_what_a_database_that_is_away_refuses_is_kept_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = database.open_engine(f"sqlite:///{tmp_path}/nowhere/at/all.db")
    with logs.about(run=RUN):
        log.info("first")
    with monkeypatch.context() as patch:
        patch.setattr(database, "engine", lambda: away)
        refused = journal.flush()
    with logs.about(run=RUN):
        log.info("second")

    written = journal.flush()

    assert (refused, written) == (0, 2)
    assert [line.event for line in kept()] == ["first", "second"]


@pytest.mark.usefixtures("out")
def test_of_more_lines_than_can_wait_the_oldest_are_lost() -> None:
    most = logs._MOST_WAITING
    refused = [logs.Line(RUN, dt.datetime.now(dt.UTC), "info", str(number), {}) for number in range(most)]
    with logs.about(run=RUN):
        log.info("since then")

    logs.put_back(refused)

    waiting = [line.event for line in logs.take_lines()]
    assert waiting == [*map(str, range(1, most)), "since then"]


@pytest.mark.usefixtures("out")
def test_a_line_that_cannot_be_told_in_words_is_written_all_the_same(out: io.StringIO) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    with logs.about(run=RUN):
        log.info("before")
        logging.getLogger("some.library").warning("%s", "x" * 5_000, extra={"odd": Odd()})

    assert [line.event[:3] for line in logs.take_lines()] == ["bef", "…xx"]
    assert len(out.getvalue().splitlines()) == 2

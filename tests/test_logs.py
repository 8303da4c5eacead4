"""Lines for machines: JSON with the ids of what they are about, ours and the libraries'."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from backend import logs
from backend.settings import settings


@pytest.fixture
def stream(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield io.StringIO()
    logging.root.handlers, logging.root.level = handlers, level


def test_a_line_is_json_and_knows_its_project_round_and_run(stream: io.StringIO) -> None:
    logs.configure(stream)

    with logs.about(project=3, round=7, run="round:3:7"):
        structlog.get_logger().info("encode.done", encoded=12)
        logging.getLogger("some.library").warning("slow %s", "answer")
    structlog.get_logger().info("after")

    ours, theirs, after = map(json.loads, stream.getvalue().splitlines())
    assert ours | {"timestamp": ""} == {
        "event": "encode.done", "encoded": 12, "project": 3, "round": 7, "run": "round:3:7", "level": "info",
        "timestamp": "",
    }  # fmt: skip
    assert (theirs["event"], theirs["round"], theirs["logger"]) == ("slow answer", 7, "some.library")
    assert "round" not in after


def test_text_is_asked_for(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_LOG", "text")
    settings.cache_clear()
    logs.configure(stream)

    structlog.get_logger().info("serve.ready", url="http://x")

    assert not stream.getvalue().startswith("{")
    assert "serve.ready" in stream.getvalue()

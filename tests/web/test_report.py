"""The report: one file, with everything in it, and nothing in it that another host is asked for."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.rounds.queue import prepare_database
from tests.web.played import HOSTILE, TWICE, VERSIONS, play
from tests.web.test_dashboard import SECRETS, Document


def test_it_is_one_file_that_says_how_it_goes(home: Path, tmp_path: Path) -> None:
    prepare_database()
    played = play(home / "data")

    answer = CliRunner().invoke(app, ["report", played.name, "--out", str(tmp_path / "report.html")])

    assert answer.exit_code == 0, answer.output
    text = (tmp_path / "report.html").read_text()
    page = Document(text)
    titles = re.findall("<h2>([^<]*)", text)
    assert titles[:5] == ["Learning curve", "Costs", "Versions", "Batches", "Drift and other alerts"]
    assert not page.values("src", "href", "action", "data")
    assert {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe", "form"} == set()
    assert HOSTILE not in text
    assert HOSTILE in page.text
    assert not any(secret in text for secret in SECRETS)
    assert all(f"v{number}+b{number}" in page.text for number in range(1, VERSIONS + 1))
    assert f"{played.labels + TWICE} labels took people" in page.text
    assert len(text) < 300_000


def test_a_project_that_never_ran_has_a_report_too(home: Path, tmp_path: Path) -> None:
    from tests.web.conftest import make_project

    prepare_database()

    answer = CliRunner().invoke(app, ["report", make_project().name, "--out", str(tmp_path / "report.html")])

    assert answer.exit_code == 0, answer.output
    assert "No version was measured yet" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["nowhere"])
def test_an_unknown_project_has_none(home: Path, tmp_path: Path, name: str) -> None:
    prepare_database()

    answer = CliRunner().invoke(app, ["report", name, "--out", str(tmp_path / "report.html")])

    assert answer.exit_code != 0
    assert not (tmp_path / "report.html").exists()

"""What commands print for programs: JSON alone on stdout; and for people: one line where something is wrong."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend import cli
from backend.rounds.queue import prepare_database
from tests.web.played import VERSIONS, Played, play


@pytest.fixture
def played(home: Path) -> Played:
    prepare_database()
    return play(home / "data", hostile=False)


@pytest.mark.parametrize(
    "words", [("status",), ("status", "{}"), ("config", "show", "{}"), ("models", "list", "{}"), ("vectors", "gc")]
)
def test_reading_commands_print_json_alone(played: Played, words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(cli.app, [*(word.format(played.name) for word in words), "--json"])

    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout) is not None


def test_the_status_says_what_to_do(played: Played) -> None:
    runner = CliRunner()

    text = runner.invoke(cli.app, ["status", played.name]).stdout
    told = json.loads(runner.invoke(cli.app, ["status", played.name, "--json"]).stdout)

    assert "8 items wait for a label" in text
    assert told["counts"]["in_batch"] == 8
    assert told["round"]["number"] == VERSIONS


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nextbatch", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_refusal_is_one_line_with_its_mend(
    played: Played, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    code = run(monkeypatch, "round", "nowhere")

    said = capfd.readouterr()
    assert code == 1
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert played.name in said.err


def test_a_fault_of_ours_is_one_line_too_unless_its_place_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("backend.configuration.json_schema", lambda: 1 / 0)

    code = run(monkeypatch, "config", "schema")
    monkeypatch.setenv("NEXTBATCH_TRACEBACK", "1")

    said = capfd.readouterr().err.strip()
    assert code == 70
    assert said.splitlines() == [
        "nextbatch: a fault of its own, ZeroDivisionError: division by zero. NEXTBATCH_TRACEBACK=1 shows where."
    ]
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, "config", "schema")

"""The commands on a project that learned twice: each answers, and a mistake is one line that says the way out."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import UnknownProject, UnknownVersion, VersionInUse
from tests.monitoring.conftest import Played


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_command_answers(played: Played, tmp_path: Path) -> None:
    played.hold_out(range(100, 160))
    for labels in (range(30), range(30, 60), range(60, 100)):
        played.label(labels)
        played.learn()
    played.label(range(100, 160))

    listed = json.loads(run("models", "list", "p", "--json"))
    shown = run("models", "show", "p", "v1")
    card = json.loads(run("models", "show", "p", "--json"))
    compared = run("models", "compare", "p", "v1", "v3")
    verified = run("models", "verify", "p")
    promoted = run("models", "promote", "p", "v2")
    exported = run("models", "export", "p", "v2", "--out", str(tmp_path / "v2.zip"))
    promoted_back = run("models", "promote", "p", "v3")

    assert [row["name"] for row in listed] == ["v3", "v2", "v1"]
    assert "p v1: retired" in shown
    assert card["state"] == "champion"
    assert {one["state"] for one in card["files"].values()} == {"intact"}
    assert compared.startswith("v1 against v3 on 60 labels of the holdout")
    assert verified.startswith("v3: equal (largest gap 0,")
    assert promoted == "v2 is the champion of p\n"
    assert exported.strip().endswith("v2.zip")
    assert promoted_back == "v3 is the champion of p\n"
    assert run("models", "delete", "p", "v1") == "v1 is deleted; its head is gone\n"


def test_a_mistake_is_told(played: Played) -> None:
    played.label(range(30))
    played.learn()

    with pytest.raises(UnknownVersion, match="It has: v1"):
        run("models", "show", "p", "v9")
    with pytest.raises(UnknownProject):
        run("models", "list", "nobody")
    with pytest.raises(VersionInUse, match="Promote another version first"):
        run("models", "delete", "p", "champion")

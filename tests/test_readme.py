"""What the README says of life without Label Studio, done as it stands there: from nothing to a selected batch."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import Annotation, Batch, Pick, reading
from backend.pool.folders import digits
from tests.conftest import forget_process_state
from tests.services import nextbatch
from tests.services.images import CACHE

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BUDGET = 20


def blocks() -> list[str]:
    """The code of the section, in order."""
    section = README.split("## Without Label Studio")[1].split("\n## ")[0]
    return re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def photos(home: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos` in a folder to be in; a home without a database."""
    (home / "encoders").symlink_to(encoders)
    for name, value in {"PRECISION": "fp32", "WORKER_THREADS": "1", "DATA_ROOT": str(tmp_path)}.items():
        monkeypatch.setenv(f"NEXTBATCH_{name}", value)
    forget_process_state()
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(digits(CACHE).train.paths[::40][:30]):
        (tmp_path / "photos" / f"{number:02}.png").write_bytes(path.read_bytes())
    return tmp_path / "photos"


@pytest.fixture
def service(photos: Path) -> Iterator[str]:
    """Web and one worker, as `nextbatch serve` runs them, but in this process; where it listens."""
    with nextbatch.web() as url, nextbatch.working():
        yield url


def test_its_command_and_its_program_select_a_batch(photos: Path, service: str, tmp_path: Path) -> None:
    command, program = blocks()
    uris = [str(path) for path in sorted(photos.iterdir())]
    assert command.split()[:2] == ["nextbatch", "select"]
    assert "http://localhost:9090" in program
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}

    by_command = subprocess.run(
        [sys.executable, "-m", "backend.cli", *command.split()[1:]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, encoding="utf-8",
    ).stdout.splitlines()  # fmt: skip
    names = {"uris": uris}
    exec(program.replace("http://localhost:9090", service), names)

    assert len(set(by_command)) == BUDGET
    assert set(by_command) < set(uris)
    with reading() as session:
        answered = sa.select(sa.func.count()).select_from(Pick).join(Batch).where(Batch.state == "answered")
        sizes = session.scalars(answered.group_by(Batch.id)).all()
        labels = session.scalars(sa.select(Annotation.label)).all()
    assert sizes == [BUDGET, BUDGET]
    assert labels == ["rose"]

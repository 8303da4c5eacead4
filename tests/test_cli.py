"""The commands as a newcomer types them: one line and the mend where something is missing, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.database import Project, transaction
from backend.pool.catalog import NewItem, add_items
from backend.rounds.encoding import embeddings_of
from backend.rounds.items import encoder_for
from backend.rounds.queue import prepare_database
from backend.settings import ProjectConfig
from backend.studio.labels import image_config
from tests.services.images import files


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments],
        capture_output=True, text=True, timeout=240, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [("round", "nothing"), ("models", "list", "nothing"), ("encode", "nothing")])
def test_without_a_database_the_mend_is_one_line(words: tuple[str, ...], home: Path) -> None:
    said = command(*words)

    assert said.returncode == 1
    assert "nextbatch migrate" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_pool_is_encoded_and_its_embeddings_are_checked_and_mended(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_database()
    config = ProjectConfig(name="p")
    images = files(12)
    for number, image in enumerate(images):
        (tmp_path / f"{number}{image.suffix}").write_bytes(image.read_bytes())
    with transaction() as session:
        session.add(Project(name="p", config=config.model_dump(mode="json"), label_config=image_config(("cat", "dog"))))
        session.flush()
        add_items(session, 1, [NewItem(str(path)) for path in sorted(tmp_path.glob("*.*g"))])
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(tmp_path))

    first, sound = command("encode", "p"), command("vectors", "verify", "p")

    assert first.stdout.strip() == "12 items encoded, 0 failed"
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.startswith("12 embeddings of efficientnet-lite0")
    (segment,) = embeddings_of(encoder_for("image", config.encoder)).store.path.glob("*.vectors")
    stored = bytearray(segment.read_bytes())
    stored[5_000] ^= 0xFF
    segment.write_bytes(stored)
    damaged = command("vectors", "verify", "p")
    assert damaged.returncode == 1
    assert "12 damaged" in damaged.stdout
    assert command("vectors", "verify", "p", "--mend").returncode == 0
    assert command("encode", "p").stdout.strip() == "12 items encoded, 0 failed"
    assert np.isfinite(embeddings_of(encoder_for("image", config.encoder)).store.gather(np.arange(12, 24))).all()

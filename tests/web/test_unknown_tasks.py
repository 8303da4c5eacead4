"""A task that a person has open and no round has seen yet: the web process asks Triton at once."""

from pathlib import Path
from typing import Any

import pytest

from backend.learning.encoders import export
from backend.pool.decode import decode
from backend.processes import wait_until
from backend.scoring.local import LocalEncoder
from backend.scoring.serving import EmbeddedTriton
from backend.settings import settings
from tests.services.images import files
from tests.services.triton import put
from tests.web.champion import crown
from tests.web.conftest import IMAGE_CONFIG, make_project, serving


def test_unknown_tasks_are_predicted_through_triton(
    sqlite_home: Path, triton: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = export("efficientnet-lite0", None, settings().home / "encoders", "fp32")
    put(triton, spec)
    project = make_project()
    champion = crown(project, dims=spec.dims, encoder_digest=spec.digest)
    images = files(3)
    (tmp_path / "broken.jpg").write_bytes(images[0].read_bytes()[:100])
    for number, path in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(path.read_bytes())
    names = ["0.jpg", "broken.jpg", "1.jpg", "2.jpg"]
    tasks = [{"id": 900 + at, "data": {"image": str(tmp_path / name)}} for at, name in enumerate(names)]
    body = {"project": str(project.studio_project_id), "label_config": IMAGE_CONFIG, "tasks": tasks}

    with serving(sqlite_home, TRITON_URL=triton.url, NEXTBATCH_DATA_ROOT=str(tmp_path)) as web:
        answer: list[dict[str, Any]] = []

        def is_answered() -> bool:
            """A busy machine may take longer than a person is made to wait; then they are still unknown."""
            answer[:] = web.client.post("/predict", json=body).raise_for_status().json()["results"]
            return all(entry["result"] for entry in (answer[0], *answer[2:]))

        assert wait_until(is_answered, 120), web.log.read_text()

    alone = LocalEncoder(spec, streams=1)
    for path, entry in zip(images, [answer[0], *answer[2:]], strict=True):
        (expected,) = champion.head.predict(alone.encode(decode(path.read_bytes(), spec.side)[None]))
        assert entry["result"][0]["value"]["choices"] == [champion.head.classes[int(expected.argmax())]]
        assert entry["score"] == pytest.approx(float(expected.max()), abs=0.01)
    assert answer[1]["result"] == []

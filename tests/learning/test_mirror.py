"""Model versions are found again in a real MLflow, once each, whatever happened on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.connections import answers
from backend.processes import free_port, spawn, stop, wait_until
from backend.rounds.mirror import reflect
from backend.settings import settings
from tests.learning.test_registry import learn, project

__all__ = ["project"]

LATER = f"""
import json, os
from mlflow import MlflowClient
from backend.database import reading, transaction
from backend.errors import MirrorFailed
from backend.learning import registry
from backend.rounds.mirror import copy

client = MlflowClient()

def seen():
    runs = client.search_runs([client.get_experiment_by_name("nextbatch-birds").experiment_id])
    named = client.get_model_version_by_alias("nextbatch-birds", "champion")
    return {{
        "versions": sorted(run.data.tags["nextbatch.version"] for run in runs),
        "states": {{run.data.tags["nextbatch.version"]: run.data.tags["nextbatch.state"] for run in runs}},
        "seeds": {{run.data.tags["nextbatch.version"]: run.data.params["model.seed"] for run in runs}},
        "files": sorted(file.path for file in client.list_artifacts(runs[0].info.run_id)),
        "status": [run.info.status for run in runs],
        "registered": len(client.search_model_versions("name = 'nextbatch-birds'")),
        "champion": client.get_run(named.run_id).info.run_name,
    }}

answer = {{"first": seen(), "nothing new": vars(copy(1))}}
with transaction() as session:
    registry.rollback(session, 1, "ann")
(cut_short,) = client.search_runs(
    [client.get_experiment_by_name("nextbatch-birds").experiment_id], "tags.`nextbatch.version` = 'v1'"
)
client.update_run(cut_short.info.run_id, status="RUNNING")
answer["after a crash"] = vars(copy(1))
answer["last"] = seen()
os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:{free_port()}"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
try:
    copy(1)
except MirrorFailed as failure:
    answer["away"] = str(failure)
print(json.dumps(answer))
"""


@pytest.fixture(params=["files", "server"])
def tracking_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """MLflow's files, and its server, which brings half of Python's data stack with it."""
    if request.param == "files":
        yield f"file://{tmp_path}/mlruns"
        return
    program = os.environ.get("NEXTBATCH_MLFLOW")
    if program is None:
        pytest.skip("MLflow's server takes a gigabyte; set NEXTBATCH_MLFLOW to its program")
    port = free_port()
    places = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "files"),
    ]
    server = spawn([program, "server", "--host", "127.0.0.1", "--port", str(port), *places], tmp_path / "mlflow.log")
    try:
        assert wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 180)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server)


@pytest.fixture
def answer(project: Any, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two versions, copied by a round's look, then by the command's function in a process that asks MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings.cache_clear()
    learn(project, 1)
    learn(project, 2)

    assert reflect(project.id, 2) == {"mirrored": True}
    command = [sys.executable, "-c", LATER]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_version_is_copied_once_and_its_state_follows(answer: dict[str, Any]) -> None:
    assert answer["first"]["versions"] == ["v1", "v2"]
    assert answer["first"]["champion"] == "v2"
    assert answer["first"]["status"] == ["FINISHED", "FINISHED"]
    assert "card.json" in answer["first"]["files"]
    assert any(name.endswith(".safetensors") for name in answer["first"]["files"])
    assert answer["nothing new"] == {"copied": 0, "changed": 0}
    assert answer["after a crash"] == {"copied": 1, "changed": 1}
    assert answer["last"]["champion"] == "v1"
    assert answer["last"]["states"] == {"v1": "champion", "v2": "retired"}
    assert answer["last"] | {"states": {}, "champion": ""} == answer["first"] | {"states": {}, "champion": ""}
    assert "MLFLOW_TRACKING_URI" in answer["away"]

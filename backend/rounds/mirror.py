"""After the batch is out: model versions are copied to MLflow, where MLFLOW_TRACKING_URI names one."""

import subprocess
import sys
from typing import Any

from backend.database import ModelVersion, Project, reading
from backend.errors import MirrorFailed
from backend.learning import card, registry
from backend.learning.mirror import Copied, Mirrored, mirror
from backend.processes import alone, last_words, spawn, stop
from backend.settings import settings

_LONGEST_S = 120.0
_NICE = 10


def copy(project_id: int) -> Mirrored:
    """Bring MLflow up to the project's versions. Raises PackageMissing, MirrorFailed."""
    with alone(settings().home / "mirror" / f"{project_id}.lock"):  # two at once would copy a version twice
        return _copy(project_id)


def _copy(project_id: int) -> Mirrored:
    with reading() as session:
        name = session.get_one(Project, project_id).name
        versions = {one.name: one for one in reversed(registry.versions(session, project_id))}
    return mirror(name, {of: one.state for of, one in versions.items()}, lambda of: _described(versions[of].id))


def reflect(project_id: int, _number: int) -> dict[str, Any]:
    """The same in a child process, which takes MLflow's 170 MB with it when it ends; at most two minutes.

    Raises MirrorFailed with the end of what the child wrote.
    """
    if not settings().mlflow_tracking_uri:
        return {}
    with reading() as session:
        name = session.get_one(Project, project_id).name
    log = settings().home / "logs" / f"mirror-{name}.log"
    log.unlink(missing_ok=True)
    child = spawn([sys.executable, "-m", "backend.cli", "models", "mirror", name], log, nice=_NICE)
    try:
        child.wait(_LONGEST_S)
    except subprocess.TimeoutExpired:
        raise MirrorFailed(problem=f"it took more than {_LONGEST_S:.0f} s") from None
    finally:
        status = stop(child)
    if status != 0:
        raise MirrorFailed(problem=last_words(log, status)[:300])
    return {"mirrored": True}


def _described(version_id: int) -> Copied:
    with reading() as session:
        version = session.get_one(ModelVersion, version_id)
        found = card.card(session, version)
        return Copied(found, card.render(found), registry.files(version))

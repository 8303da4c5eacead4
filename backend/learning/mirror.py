"""Model versions copied to an MLflow tracking server, for teams that look for all of their models there.

Our registry stays the truth: the copy is brought up to it and never read back. It needs `nextbatch[mlflow]`.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import MirrorFailed, PackageMissing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_VERSION, _STATE, _NOTE = "nextbatch.version", "nextbatch.state", "mlflow.note.content"
_LONGEST = 5_000  # characters of a tag or parameter; MLflow takes a little more
_ALIAS = "champion"


@dataclass(frozen=True)
class Copied:
    """A version as it goes to MLflow: its card, the card in words, and its files by name."""

    card: Mapping[str, Any]
    text: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Mirrored:
    """How many versions were copied anew, and of how many the state was another than MLflow knew."""

    copied: int
    changed: int


def mirror(project: str, states: Mapping[str, str], describe: Callable[[str], Copied]) -> Mirrored:
    """Bring the experiment `nextbatch-PROJECT` and the registered model of that name up to these versions: ``states``
    by name, oldest first. ``describe`` is asked for those that are not there yet.

    A run a version, with its parameters, metrics, files and card; a registered version of it; the alias `champion` on
    the one that predicts. Idempotent: a run that a crash left open is filled again, nothing is copied twice. The
    address is MLFLOW_TRACKING_URI, and all that MLflow reads from the environment holds.

    Raises PackageMissing, MirrorFailed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise PackageMissing(what="A copy of the models in MLflow", package="mlflow-skinny", extra="mlflow") from None
    try:
        return _Copy(MlflowClient(), f"nextbatch-{project}").bring_up_to(states, describe)
    except (MlflowException, OSError) as error:  # what requests raises is an OSError
        raise MirrorFailed(problem=f"{type(error).__name__}: {error}"[:300]) from error


class _Copy:
    """A project's experiment and its registered model, which have one name."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client = client
        self._name = name
        found = client.get_experiment_by_name(name)
        self._experiment = client.create_experiment(name) if found is None else found.experiment_id
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)

    def bring_up_to(self, states: Mapping[str, str], describe: Callable[[str], Copied]) -> Mirrored:
        runs = {run.data.tags[_VERSION]: run for run in self._runs() if _VERSION in run.data.tags}
        registered = {one.run_id: one.version for one in self._client.search_model_versions(f"name = '{self._name}'")}
        copied = changed = 0
        for name, state in states.items():
            run = runs.get(name)
            if run is None or run.info.status != "FINISHED":
                run = self._fill(name, describe(name), run)
                copied += 1
            elif run.data.tags.get(_STATE) != state:
                changed += 1
            of = run.info.run_id
            self._client.set_tag(of, _STATE, state)
            if of not in registered:
                registered[of] = self._client.create_model_version(self._name, run.info.artifact_uri, of).version
            if state == _ALIAS:
                self._client.set_registered_model_alias(self._name, _ALIAS, registered[of])
        return Mirrored(copied, changed)

    def _runs(self) -> Iterator["Run"]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1_000, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _fill(self, name: str, version: Copied, run: "Run | None") -> "Run":
        """A whole run: it is FINISHED last, so one that a crash cut short is known by that and filled again."""
        if run is None:
            run = self._client.create_run(self._experiment, tags={_VERSION: name}, run_name=name)
        of = run.info.run_id
        self._client.set_tag(of, _NOTE, f"```\n{version.text[:_LONGEST]}\n```")
        for fact, value in _flat({"made": version.card["made"]}):
            self._client.set_tag(of, f"nextbatch.{fact}", value[:_LONGEST])
        for fact, value in _flat({"data": version.card["data"], "model": version.card["model"]}):
            self._client.log_param(of, fact, value[:_LONGEST])
        for measure, number in _numbers(version.card["metrics"]):
            self._client.log_metric(of, measure, number)
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "card.json"
            card.write_text(json.dumps(dict(version.card), indent=2, ensure_ascii=False))
            self._client.log_artifact(of, str(card))
        for path in version.files.values():
            if path.exists():
                self._client.log_artifact(of, str(path))
        self._client.set_terminated(of)
        return run


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each fact that is there as a text, by its path: `model.seed`."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each number by its name, the ends of an interval with theirs: `accuracy_interval_low`."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}_{end}", number) for end, number in _numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)

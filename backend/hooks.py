"""predict and fit: what Label Studio's calls mean. In the shape of `LabelStudioMLBase` of label-studio-ml 2.x."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend import answers, events, metrics
from backend.database import Event, ModelVersion, Project, Round, reading, transaction
from backend.errors import BadLabelConfig, NextbatchError
from backend.learning import usage
from backend.learning.challenge import answering, is_challengers
from backend.learning.heads import Head
from backend.learning.registry import champion
from backend.rounds.queue import FORCING_ACTIONS, LABEL_ACTIONS, is_resting, request_round, rest_of_batch
from backend.settings import settings
from backend.studio.labels import LabelTask

if TYPE_CHECKING:
    from label_studio_sdk.label_interface.interface import LabelInterface

log = structlog.get_logger()

_MAX_PROJECTS = 1_000

_writing = threading.Lock()  # SQLite has one writer; threads that queue here do not sleep in its busy handler
_remembered: OrderedDict[str, dict[str, Any]] = OrderedDict()


class Hooks:
    """One of Label Studio's calls, for one of its projects.

    A model written for label-studio-ml 2.x moves here by copying the bodies of `setup`, `predict` and `fit` into a
    subclass, given to `create_app`. To go the other way, see docs/label-studio.md.
    """

    encode_now: ClassVar[answers.EncodeNow | None] = None
    """Turns the URIs of a few items that a person has open into embeddings, at once; None: they wait for a round."""

    project_id: str
    label_config: str | None

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        """`project_id` is Label Studio's, `label_config` its XML; both as the call carries them."""
        self.project_id = (project_id or "").partition(".")[0]
        self.label_config = label_config

    def setup(self) -> dict[str, Any]:
        """Label Studio connects or asks whether we are well: check its labelling configuration, name the model.

        Raises BadLabelConfig, which Label Studio shows to whoever connects.
        """
        config = self.label_config if self.label_config is not None else self._stored_config()
        if config:
            LabelTask.parse(config)
        version = self.model_version
        self.set("model_version", version)
        return {"model_version": version}

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        context: Mapping[str, Any] | None = None,  # noqa: ARG002 - label-studio-ml's signature
        **kwargs: Any,  # noqa: ARG002 - label-studio-ml's signature
    ) -> list[dict[str, Any]]:
        """Exactly one entry a task, in order, within NEXTBATCH_PREDICT_DEADLINE_S.

        What cannot be predicted is an entry with an empty result: Label Studio drops all where one is missing.
        """
        deadline = time.monotonic() + settings().predict_deadline_s
        with reading() as session:
            project = self._project(session)
            version, rival = (None, None) if project is None else answering(session, project.id)
        name = "v0" if version is None else version.name
        entries: list[dict[str, Any]] = [{"result": [], "score": 0.0, "model_version": name} for _ in tasks]
        if project is None:
            return entries
        try:
            question = LabelTask.parse(self.label_config or project.label_config)
        except BadLabelConfig as error:
            log.warning("predict.bad_label_config", project=project.name, cause=type(error).__name__)
            return entries
        opened = [answers.read_task(at, task, question.data_key, question.is_inline) for at, task in enumerate(tasks)]
        readable = [task for task in opened if task is not None]
        metrics.predictions.labels("broken").inc(len(opened) - len(readable))
        beside = _load(rival)
        share = project.settings.challenger.share if beside is not None else 0.0
        theirs = [task for task in readable if rival and share and is_challengers(task.key, rival.name, share)]
        ours = [task for task in readable if task not in theirs] if theirs else readable
        for one, model, asked in ((version, _load(version), ours), (rival, beside, theirs)):
            if not asked:
                continue
            found = answers.predict_tasks(project.id, model, asked, deadline, type(self).encode_now)
            for place, probabilities in found.items():
                assert model is not None
                assert one is not None
                entry = _entry(question, model.head, probabilities)
                entries[place] |= entry | {"model_version": one.name}
            if one is not None:
                metrics.used(project.name, one.name, len(found))
                usage.count(one.id, len(found))
        return entries

    def fit(
        self,
        event: str,
        data: Mapping[str, Any],
        **kwargs: Any,  # noqa: ARG002 - label-studio-ml's signature
    ) -> dict[str, Any]:
        """Something happened: write it down, and ask for a round where one is due at once. One transaction.

        Raises MalformedEvent or UnknownEvent; OperationalError where the database is held for longer than it may be.
        """
        happened = events.parse({**data, "action": event})
        with _writing, transaction() as session:
            project = session.scalar(sa.select(Project).where(Project.studio_project_id == happened.studio_project_id))
            if project is None:
                metrics.events.labels("unknown_project").inc()
                return {"stored": False, "reason": "nextbatch does not know this project"}
            session.add(
                Event(
                    project_id=project.id,
                    action=happened.action,
                    task_ids=list(happened.task_ids),
                    annotation_ids=list(happened.annotation_ids),
                )
            )
            session.flush()
            round_number = _ask_at_once(session, project, happened.action)
        metrics.events.labels("stored").inc()
        return {"stored": True, "round": round_number}

    def versions(self) -> list[str]:
        """Names of all model versions of the project, newest first; of all projects where none is given."""
        query = sa.select(ModelVersion.number).distinct().order_by(ModelVersion.number.desc())
        with reading() as session:
            if self.project_id:
                project = self._project(session)
                query = query.where(ModelVersion.project_id == (project.id if project else -1))
            return [f"v{number}" for number in session.scalars(query)] or ["v0"]

    # What bodies written for label-studio-ml 2.x use besides.

    @property
    def model_version(self) -> str:
        """The champion's name; v0 before there is one."""
        with reading() as session:
            project = self._project(session)
            version = None if project is None else champion(session, project.id)
        return "v0" if version is None else version.name

    def get(self, key: str) -> Any:
        """What `set` kept for this project in this process, or None."""
        return _remembered.get(self.project_id, {}).get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a value for this project, as long as the process lives."""
        _remembered.setdefault(self.project_id, {})[key] = value
        while len(_remembered) > _MAX_PROJECTS:
            _remembered.popitem(last=False)

    def has(self, key: str) -> bool:
        return key in _remembered.get(self.project_id, {})

    @cached_property
    def label_interface(self) -> "LabelInterface":
        """The SDK's view of the labelling configuration. Its import takes seconds: only for models that want it."""
        from label_studio_sdk.label_interface.interface import LabelInterface

        return LabelInterface(config=self.label_config or self._stored_config())

    def _stored_config(self) -> str:
        with reading() as session:
            project = self._project(session)
        return "" if project is None else project.label_config

    def _project(self, session: Session) -> Project | None:
        if not self.project_id.isdecimal():
            return None
        return session.scalar(sa.select(Project).where(Project.studio_project_id == int(self.project_id)))


def _ask_at_once(session: Session, project: Project, action: str) -> int | None:
    """The number of the round that this event asks for, if it needs no quiet time; the worker's ticker tests the rest.

    Few and small queries: while people label, this runs in their request.
    """
    if action in FORCING_ACTIONS:
        return request_round(session, project.id, "start_training").number
    if action not in LABEL_ACTIONS or project.settings.trigger.rest_share == 0:
        return None
    states = sa.select(Round.state).where(Round.project_id == project.id).order_by(Round.number.desc()).limit(1)
    if session.scalar(states) == "waiting" or is_resting(session, project.id):
        return None
    if rest_of_batch(session, project.id) > project.settings.trigger.rest_share:
        return None
    return request_round(session, project.id, "batch_runs_out").number


def _load(version: ModelVersion | None) -> answers.Model | None:
    if version is None:
        return None
    try:
        return answers.load_model(version.encoder_digest, version.head_digest)
    except NextbatchError as error:
        log.error("predict.head_unreadable", version=version.name, cause=str(error))
        return None


def _entry(task: LabelTask, head: Head, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """What the head tells as Label Studio draws it; empty where the configuration no longer has such a choice."""
    label = head.label_of(probabilities)
    if not task.question.knows(label):
        return {}
    return {"result": task.to_result(label), "score": round(head.confidence(probabilities), 6)}

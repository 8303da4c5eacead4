"""Label Studio's protocol for ML backends: what it sends and what it wants back."""

from typing import Any

import structlog
from flask import Blueprint, jsonify, redirect, request
from werkzeug.exceptions import BadRequest

from backend import metrics
from backend.errors import MalformedEvent, MalformedRequest, UnknownEvent
from backend.events import studio_project_id
from backend.hooks import Hooks
from backend.web import auth

log = structlog.get_logger()


def blueprint(hooks: type[Hooks]) -> Blueprint:
    """The endpoints, answered by `hooks`: one object a request, as the 2.x line of label-studio-ml makes them."""
    pages = Blueprint("mlbackend", __name__)

    @pages.get("/")
    @pages.get("/health")
    def health() -> Any:
        """Touches nothing: Label Studio asks before nearly every call and waits 1 s. A browser wants the dashboard."""
        if request.path == "/" and "text/html" in request.headers.get("Accept", ""):
            return redirect("projects", 303)
        return auth.refuse_wrong_basic() or {"status": "UP", "model_class": hooks.__name__}

    @pages.get("/versions")
    def versions() -> Any:
        refusal = auth.require_basic()
        if refusal is not None:
            return refusal
        project = request.args.get("project")  # Label Studio sends none: it asks for versions of whatever is here
        model = hooks() if project is None else _hooks_of(hooks, project)
        return {"versions": model.versions()}

    @pages.post("/setup")
    def setup() -> Any:
        """`hostname` and `access_token` in the body are not ours to use; they are not read."""
        refusal = auth.require_basic()
        if refusal is not None:
            return refusal
        body = _body()
        model = _hooks_of(hooks, body.get("project"), body.get("schema"))
        return model.setup() or {"model_version": model.model_version}

    @pages.post("/predict")
    def predict() -> Any:
        refusal = auth.require_basic()
        if refusal is not None:
            return refusal
        body = _body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise MalformedRequest(problem="`tasks` is no list")
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None  # its login and password are not read
        model = _hooks_of(hooks, body.get("project"), body.get("label_config"))
        return jsonify(results=_as_results(model.predict(tasks, context=context), model.model_version, len(tasks)))

    @pages.post("/webhook")
    def webhook() -> Any:
        refusal = auth.require_webhook_secret()
        if refusal is not None:
            return refusal
        try:
            body = _body()
            action = body.pop("action", None)
            project = body.get("project")
            project_id = project.get("id") if isinstance(project, dict) else project
            model = hooks(project_id=None if project_id is None else str(project_id))
            return {"status": "ok", "result": model.fit(action, body)}
        except UnknownEvent as unknown:
            metrics.events.labels("unknown_kind").inc()
            return {"status": "ignored", "reason": str(unknown)}
        except (MalformedEvent, MalformedRequest):
            metrics.events.labels("malformed").inc()
            raise

    return pages


def _body() -> dict[str, Any]:
    try:
        body = request.get_json(force=True)
    except RecursionError as error:
        raise MalformedRequest(problem="the JSON is nested too deeply") from error
    except BadRequest as error:
        raise MalformedRequest(problem="the body is no JSON") from error
    if not isinstance(body, dict):
        raise MalformedRequest(problem="the body is no JSON object")
    return body


def _hooks_of(hooks: type[Hooks], project: object, label_config: object = None) -> Hooks:
    try:
        project_id = str(studio_project_id(project))
    except MalformedEvent as error:
        raise MalformedRequest(problem="`project` is no project id") from error
    return hooks(project_id=project_id, label_config=label_config if isinstance(label_config, str) else None)


def _as_results(answer: Any, model_version: str, tasks: int) -> list[Any]:
    """What `predict` returned as Label Studio wants it: a list or a 2.x `ModelResponse`, padded to one entry a task."""
    if hasattr(answer, "model_dump"):
        answer = answer.model_dump()
    if isinstance(answer, dict):
        answer = answer.get("predictions", [])
    results = list(answer or [])
    if len(results) != tasks:
        log.error("predict.wrong_length", tasks=tasks, results=len(results))
        results = results[:tasks] + [{"result": [], "score": 0.0}] * (tasks - len(results))
    return [{"model_version": model_version, **one} if isinstance(one, dict) else one for one in results]

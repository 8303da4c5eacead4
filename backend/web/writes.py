"""The routes that change something: projects made, items pushed, labels kept, queries and rounds asked for."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from flask import g
from pydantic import Field, model_validator
from sqlalchemy.orm import Session
from werkzeug.exceptions import Forbidden, NotFound

import strategies
from backend import answers
from backend.database import ModelVersion, project_named, reading
from backend.rounds import labelling, pushes, queries
from backend.rounds.labelling import NewProject, Stored
from backend.rounds.pushes import Pushed
from backend.rounds.queue import cancel, request_round
from backend.rounds.votes import Cast, Counted, cast
from backend.settings import Section
from backend.web import auth
from backend.web.route import Asked, Route
from backend.web.views.projects import ProjectState, project_state
from backend.web.views.queries import QueryView, query_view
from backend.web.views.rounds import RoundView, view

MOST_LABELS = 1_000  # a call, in one transaction: 0.2 s on SQLite, which lets webhooks in
_ID = 2**31 - 1
Text = Annotated[str, Field(min_length=1, max_length=65_536)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Id = Annotated[int, Field(ge=0, le=_ID)]
Strategy = Annotated[Name, Field(json_schema_extra=lambda schema: schema.update(enum=list(strategies.names())))]


class Items(Section):
    """Items by their addresses, or (where items are texts) the texts; or a manifest that names them."""

    uris: Annotated[list[Text], Field(max_length=100_000)] = Field(default_factory=list)
    texts: Annotated[list[Text], Field(max_length=100_000)] = Field(default_factory=list)
    manifest: Name | None = None
    uri_field: Name = "uri"


class Wanted(Section):
    """So many items; by this strategy with these parameters, or by the project's own."""

    budget: Annotated[int, Field(ge=1, le=queries.MOST_BUDGET)]
    strategy: Strategy | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Label(Section):
    """What somebody says of an item, which `uri` (or the text), `key` or `item_id` names; null is a skip.

    `id` is your own id of this annotation: sent again, it changes. Without one, an annotator has one label of an item.
    """

    label: Name | None
    uri: Text | None = None
    key: Annotated[str, Field(min_length=40, max_length=40)] | None = None
    item_id: Id | None = None
    annotator: Name | None = None
    id: Annotated[int, Field(gt=0, le=_ID)] | None = None
    seconds: Annotated[float, Field(ge=0, le=1e7)] | None = None


class Labels(Section):
    """Labels to keep: all of them or none."""

    labels: Annotated[list[Label], Field(max_length=MOST_LABELS)]


class Feedback(Section):
    """What somebody who was served a prediction says of it: `vote`, or the item's true `label`.

    `version` is the model version that made it, such as v7 (`model_version` in what /predict answers). With a `voter`
    the later one on an item and version counts.
    """

    version: Annotated[str, Field(pattern="^(v[0-9]{1,9}|champion)$")]
    vote: Literal["for", "against"] | None = None
    label: Name | None = None
    uri: Text | None = None
    key: Annotated[str, Field(min_length=40, max_length=40)] | None = None
    item_id: Id | None = None
    voter: Name | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.vote is None) == (self.label is None):
            raise ValueError("give a vote or a label")
        return self


class Feedbacks(Section):
    """Feedback to keep: all of it or none."""

    project: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
    feedback: Annotated[list[Feedback], Field(max_length=MOST_LABELS)]


def _make(session: Session, asked: Asked) -> ProjectState:
    new = asked.body
    if new.encoder.weights is not None:
        raise Forbidden("encoder.weights names a file of the service's machine: set it there, with a YAML.")
    if g.caller == auth.ANYBODY and (new.pool.allow_hosts or new.pool.allow_buckets or new.pool.s3_endpoint):
        mend = "Make a token there (nextbatch tokens create NAME --scope admin), and use it."
        raise Forbidden(f"Who opens hosts and buckets to this service must be known to it. {mend}")
    project = labelling.make_project(session, new)
    session.flush()
    return project_state(session, project.name)


def _push(_: None, asked: Asked, name: str) -> Pushed:
    with reading() as session:
        project = project_named(session, name)
    if not isinstance(asked.body, Items):
        return pushes.push_lines(project, asked.body)
    if asked.body.manifest is not None:
        return pushes.push_manifest(project, asked.body.manifest, asked.body.uri_field)
    return pushes.push_named(project, asked.body.uris, asked.body.texts)


def _label(session: Session, asked: Asked, name: str) -> Stored:
    given = [labelling.Given(**one.model_dump()) for one in asked.body.labels]
    return labelling.store(session, project_named(session, name), given)


def _feedback(session: Session, asked: Asked) -> Counted:
    votes = [
        Cast(**one.model_dump(exclude={"vote"}), is_against=None if one.vote is None else one.vote == "against")
        for one in asked.body.feedback
    ]
    return cast(session, project_named(session, asked.body.project), votes, _says)


def _says(version: ModelVersion, hashes: Sequence[str]) -> list[str | None]:
    return answers.says(answers.load_model(version.encoder_digest, version.head_digest), hashes)


def _query(session: Session, asked: Asked, name: str) -> QueryView:
    project = project_named(session, name)
    wanted = asked.body
    round_ = queries.ask(session, project, queries.Query(wanted.budget, wanted.strategy, wanted.parameters))
    return query_view(session, round_)


def _round(session: Session, _: Asked, name: str) -> RoundView:
    return view(request_round(session, project_named(session, name).id, "api"))


def _cancel(session: Session, _: Asked, name: str, number: int) -> RoundView:
    round_ = cancel(session, project_named(session, name).id, number)
    if round_ is None:
        raise NotFound(f"{name} has no round or query {number}.")
    return view(round_)


_ONE = "/projects/{name}"
WRITES = (
    Route(
        "POST",
        "/projects",
        "make_project",
        "Make a project without Label Studio; the same one again is found.",
        ProjectState,
        _make,
        status=201,
        scope="admin",
        body=NewProject,
        example={"name": "flowers", "kind": "image", "labels": ["rose", "tulip"]},
    ),
    Route(
        "POST",
        f"{_ONE}/items",
        "push_items",
        "Push items. JSON lines, each with `uri` (or `text`) and any data, are read as they come.",
        Pushed,
        _push,
        scope="label",
        body=Items,
        example={"uris": ["https://example.org/rose.jpg"]},
        takes_lines=True,
    ),
    Route(
        "POST",
        f"{_ONE}/labels",
        "keep_labels",
        "Keep labels of a project without Label Studio.",
        Stored,
        _label,
        scope="label",
        body=Labels,
        example={"labels": []},
    ),
    Route(
        "POST",
        "/feedback",
        "give_feedback",
        "Votes on served predictions, or true labels; items with many against them join the next batch.",
        Counted,
        _feedback,
        scope="label",
        body=Feedbacks,
        example={"project": "flowers", "feedback": []},
    ),
    Route(
        "POST",
        f"{_ONE}/queries",
        "ask_query",
        "Ask which items to label: a job, whose picks come in order.",
        QueryView,
        _query,
        status=202,
        scope="label",
        body=Wanted,
        example={"budget": 10, "strategy": "auto"},
    ),
    Route(
        "POST",
        f"{_ONE}/rounds",
        "ask_for_round",
        "Ask for a round; while one waits, it is that one.",
        RoundView,
        _round,
        status=202,
        scope="label",
    ),
    Route(
        "POST",
        f"{_ONE}/rounds/{{number}}/cancel",
        "cancel_round",
        "Cancel a round or a query: it ends at its next step. One that ended stays as it is.",
        RoundView,
        _cancel,
        scope="label",
    ),
)

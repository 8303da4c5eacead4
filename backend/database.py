"""Tables and sessions. The database is the truth; Label Studio is where people work.

SQLite by default, Postgres by URL; one set of tables for both. Times are UTC with a zone.
"""

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from backend.errors import UnknownProject
from backend.settings import ProjectConfig, settings


class UtcTime(sa.TypeDecorator[dt.datetime]):
    """A moment in UTC. SQLite forgets zones, so they are put back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else value.replace(tzinfo=value.tzinfo or dt.UTC)


def now() -> dt.datetime:
    """The one clock: UTC."""
    return dt.datetime.now(dt.UTC)


class Table(DeclarativeBase):
    type_annotation_map = {dt.datetime: UtcTime, dict[str, Any]: sa.JSON, list[Any]: sa.JSON}  # noqa: RUF012 - SQLAlchemy's protocol


class Project(Table):
    """A pool, a configuration and a label source.

    `encoder` is the encoder in use, from the first scan on: its section, and the digest that it then had. The
    configuration may name another one; `EncoderChange` leads there.
    """

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64), unique=True)
    config: Mapped[dict[str, Any]]
    config_version: Mapped[int] = mapped_column(default=1)
    studio_project_id: Mapped[int | None] = mapped_column(unique=True)
    label_config: Mapped[str] = mapped_column(sa.Text, default="")
    sync_cursor: Mapped[str | None] = mapped_column(sa.String(64))
    encoder: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)

    @property
    def settings(self) -> ProjectConfig:
        """The configuration, checked."""
        return ProjectConfig.model_validate(self.config)


class ProjectSettings(Table):
    """Every configuration that a project ever had."""

    __tablename__ = "project_settings"
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    config: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class EncoderChange(Table):
    """A project's way to another encoder, while rounds go on with the one in use; `rounds.changes` knows the states.

    `encoder` is the one wanted, with its digest once that is known, and `previous` what it replaced at the begin of
    round `switched_round`. `unloaded_at`: what was given up, `previous` or a refused `encoder`, has left Triton.
    """

    __tablename__ = "encoder_changes"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    encoder: Mapped[dict[str, Any]]
    previous: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    actor: Mapped[str] = mapped_column(sa.String(128))
    # waiting | checking | encoding | ready | in_use | replaced | failed | cancelled
    state: Mapped[str] = mapped_column(sa.String(10), default="waiting")
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    failure: Mapped[str | None] = mapped_column(sa.Text)
    switched_round: Mapped[int | None]
    switched_at: Mapped[dt.datetime | None]
    unloaded_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    finished_at: Mapped[dt.datetime | None]


class Item(Table):
    """One thing that can be labelled. `content_hash` is known once its bytes were read.

    `validator` is what the pool's source said of the bytes when it was last listed: while it says the same, they are.
    Empty where a source tells nothing; NULL for what no listing names, such as a task.
    """

    __tablename__ = "items"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "key"),
        sa.Index("ix_items_task", "project_id", "task_id"),
        sa.Index("ix_items_state", "project_id", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    key: Mapped[str] = mapped_column(sa.String(40))  # sha256 of the URI, 160 bits: what tasks carry as nextbatch_key
    uri: Mapped[str] = mapped_column(sa.Text)
    content_hash: Mapped[str | None] = mapped_column(sa.String(64))
    validator: Mapped[str | None] = mapped_column(sa.Text)
    task_id: Mapped[int | None]
    is_holdout: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(sa.String(8), default="new")  # new | encoded | failed | gone
    failure: Mapped[str | None] = mapped_column(sa.Text)
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class ItemFacts(Table):
    """Plain numbers of a content, such as its brightness: `pool.facts` says which. A cache; may be emptied."""

    __tablename__ = "item_facts"
    content_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    facts: Mapped[dict[str, Any]]


class Annotation(Table):
    """What a person said of an item, as last seen; `label` is None for a skip."""

    __tablename__ = "annotations"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "external_id"),
        sa.Index("ix_annotations_item", "item_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"))
    external_id: Mapped[int]
    label: Mapped[str | None] = mapped_column(sa.Text)
    annotator: Mapped[str | None] = mapped_column(sa.String(255))
    lead_time_s: Mapped[float | None]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]
    deleted_at: Mapped[dt.datetime | None]


class Event(Table):
    """Something that Label Studio told us; read when a round that began later ended."""

    __tablename__ = "events"
    __table_args__ = (sa.Index("ix_events_unread", "project_id", "round_number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    action: Mapped[str] = mapped_column(sa.String(64))
    task_ids: Mapped[list[Any]] = mapped_column(default=list)
    annotation_ids: Mapped[list[Any]] = mapped_column(default=list)
    received_at: Mapped[dt.datetime] = mapped_column(default=now)
    round_number: Mapped[int | None]


class Round(Table):
    """One turn of the loop; `number` is claimed once, `step` is where it is.

    `like` is what its batch shall be like, where somebody asked for that. `query` is a question of the API (strategy,
    parameters, budget): its batch answers the caller and is not published.
    """

    __tablename__ = "rounds"
    __table_args__ = (sa.UniqueConstraint("project_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    number: Mapped[int]
    workflow_id: Mapped[str] = mapped_column(sa.String(128))
    trigger: Mapped[str] = mapped_column(sa.String(32), default="hand")
    state: Mapped[str] = mapped_column(
        sa.String(10), default="waiting"
    )  # waiting | running | done | failed | cancelled
    step: Mapped[str] = mapped_column(sa.String(16), default="")
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    like: Mapped[dict[str, Any]] = mapped_column(default=dict)
    query: Mapped[dict[str, Any]] = mapped_column(default=dict)
    is_unwanted: Mapped[bool] = mapped_column(default=False)  # somebody cancels it; it ends as soon as it notices
    failure: Mapped[str | None] = mapped_column(sa.Text)
    due_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class ModelVersion(Table):
    """Encoder digest + head digest + lineage; immutable but for its state and tags; named `v<number>`."""

    __tablename__ = "model_versions"
    __table_args__ = (sa.UniqueConstraint("project_id", "number"), sa.UniqueConstraint("round_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    number: Mapped[int]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("model_versions.id"))
    encoder_digest: Mapped[str] = mapped_column(sa.String(64))
    head_digest: Mapped[str] = mapped_column(sa.String(64))
    snapshot: Mapped[str] = mapped_column(sa.String(64))
    seed: Mapped[int] = mapped_column(sa.BigInteger)
    metrics: Mapped[dict[str, Any]]
    lineage: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(
        sa.String(10), default="candidate"
    )  # candidate | challenger | champion | retired | refused | deleted
    tags: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)

    @property
    def name(self) -> str:
        return f"v{self.number}"


class ModelChange(Table):
    """What was done with a model version, and by whom; `previous_id` is the champion that a promotion retired."""

    __tablename__ = "model_changes"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    version_id: Mapped[int] = mapped_column(sa.ForeignKey("model_versions.id"))
    previous_id: Mapped[int | None] = mapped_column(sa.ForeignKey("model_versions.id"))
    # promote | rollback | refuse | tag | untag | delete | challenge | look | withdraw
    action: Mapped[str] = mapped_column(sa.String(16))
    actor: Mapped[str] = mapped_column(sa.String(128))
    detail: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class ModelAnalysis(Table):
    """A closer look at a version on the holdout, as labelled when it was made; `learning.analysis` knows the form."""

    __tablename__ = "model_analyses"
    version_id: Mapped[int] = mapped_column(sa.ForeignKey("model_versions.id"), primary_key=True)
    found: Mapped[dict[str, Any]]
    made_at: Mapped[dt.datetime] = mapped_column(default=now)


class ModelAdvice(Table):
    """What the learning curve up to a version says of stopping: criterion, says_stop and says of each criterion."""

    __tablename__ = "model_advice"
    version_id: Mapped[int] = mapped_column(sa.ForeignKey("model_versions.id"), primary_key=True)
    signals: Mapped[list[Any]]


class ModelUse(Table):
    """How many predictions a version gave on a day."""

    __tablename__ = "model_uses"
    version_id: Mapped[int] = mapped_column(sa.ForeignKey("model_versions.id"), primary_key=True)
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    answers: Mapped[int] = mapped_column(default=0)


class Batch(Table):
    """The ordered items put in front of people by one round."""

    __tablename__ = "batches"
    __table_args__ = (sa.UniqueConstraint("project_id", "number"), sa.UniqueConstraint("round_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    number: Mapped[int]
    version: Mapped[str] = mapped_column(sa.String(64))  # as published, such as v7+b12
    model_version_id: Mapped[int | None] = mapped_column(sa.ForeignKey("model_versions.id"))
    strategy: Mapped[str] = mapped_column(sa.String(64))
    policy: Mapped[str] = mapped_column(sa.Text, default="")
    state: Mapped[str] = mapped_column(sa.String(10), default="selected")  # selected | published | replaced | answered
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    published_at: Mapped[dt.datetime | None]


class Pick(Table):
    """One item of a batch: its rank and why it is there. Propensity is NULL where the pick is deterministic."""

    __tablename__ = "picks"
    batch_id: Mapped[int] = mapped_column(sa.ForeignKey("batches.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), index=True)
    utility: Mapped[float | None]
    propensity: Mapped[float | None]
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    is_random_slice: Mapped[bool] = mapped_column(default=False)
    is_kept: Mapped[bool] = mapped_column(default=False)  # left over from the batch before
    prediction: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    model: Mapped[str] = mapped_column(sa.String(16), default="")  # the version whose prediction that is
    shadow: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)  # the other's, where a version challenges
    nearest_id: Mapped[int | None]  # the labelled item that it is most like


class Mark(Table):
    """What a person decided about an item: `first` to have it labelled before others, `never` to keep it away."""

    __tablename__ = "marks"
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(8))  # first | never
    place: Mapped[int]  # the order among the first ones
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Deed(Table):
    """What somebody did to a project by hand, for the books. Model versions have books of their own (ModelChange)."""

    __tablename__ = "deeds"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    actor: Mapped[str] = mapped_column(sa.String(128))
    action: Mapped[str] = mapped_column(sa.String(32))
    detail: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Alert(Table):
    """Something a person should know: what was seen, how sure it is, what to do. Due to be told at `due_at`."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(sa.ForeignKey("rounds.id"))
    severity: Mapped[str] = mapped_column(sa.String(8))  # note | warn | stop
    code: Mapped[str] = mapped_column(sa.String(64))
    message: Mapped[str] = mapped_column(sa.Text)
    evidence: Mapped[str] = mapped_column(sa.Text, default="")
    mend: Mapped[str] = mapped_column(sa.Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[dt.datetime | None] = mapped_column(default=now, index=True)
    delivered_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Job(Table):
    """A part of a scan: the items of a range of ids that were new when it was made, for one worker to encode."""

    __tablename__ = "jobs"
    __table_args__ = (sa.Index("ix_jobs_state", "project_id", "state"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"))
    encoder_digest: Mapped[str] = mapped_column(sa.String(64))
    first_item: Mapped[int]
    last_item: Mapped[int]
    items: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(8), default="waiting")  # waiting | running | done | failed
    worker: Mapped[str | None] = mapped_column(sa.String(64))
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    stages: Mapped[dict[str, Any]] = mapped_column(default=dict)
    failure: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class LogLine(Table):
    """A line that a run wrote, by the engine's id of it: the last lines of each run are kept (`rounds.journal`)."""

    __tablename__ = "log_lines"
    __table_args__ = (sa.Index("ix_log_lines_run", "run", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(sa.String(128))
    at: Mapped[dt.datetime]
    level: Mapped[str] = mapped_column(sa.String(8))
    event: Mapped[str] = mapped_column(sa.Text)
    facts: Mapped[dict[str, Any]]


class Comparison(Table):
    """Ways to label beside a project's own: the demo's random arm, or a backtest; `rounds.arms` knows the form."""

    __tablename__ = "comparisons"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))  # demo | backtest
    baseline: Mapped[str] = mapped_column(sa.String(64))
    facts: Mapped[dict[str, Any]]
    arms: Mapped[list[Any]]
    advice: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Parcel(Table):
    """Vectors on their way from a worker that does not share the home: what a job's scan finished in half a second.

    `hashes` are the items' contents; `rows` has the float16 vectors of `row_hashes`, those not sent before.
    """

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    item_ids: Mapped[list[Any]]
    hashes: Mapped[list[Any]]
    row_hashes: Mapped[list[Any]]
    rows: Mapped[bytes] = mapped_column(sa.LargeBinary)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Token(Table):
    """Who may call the API, and how far. The secret itself is shown once and kept nowhere: `digest` is its sha256."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64), unique=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    scope: Mapped[str] = mapped_column(sa.String(8))  # read | label | admin
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    expires_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]


class KeptAnswer(Table):
    """What the API answered to a request with an Idempotency-Key; `request` is the digest of that request."""

    __tablename__ = "kept_answers"
    __table_args__ = (sa.UniqueConstraint("caller", "key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    caller: Mapped[str] = mapped_column(sa.String(64))
    key: Mapped[str] = mapped_column(sa.String(255))
    request: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[int]
    body: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[dt.datetime] = mapped_column(default=now, index=True)


class Vote(Table):
    """What somebody who was served a prediction says of it: for or against it, or the item's true label.

    `is_against` is None where a true label was given and nobody knows what the version says of the item.
    """

    __tablename__ = "votes"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), index=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), index=True)
    model_version_id: Mapped[int] = mapped_column(sa.ForeignKey("model_versions.id"))
    is_against: Mapped[bool | None]
    label: Mapped[str | None] = mapped_column(sa.Text)
    voter: Mapped[str | None] = mapped_column(sa.String(255))
    created_at: Mapped[dt.datetime] = mapped_column(default=now)


class Worker(Table):
    """A heartbeat per worker process; `executor_id` is what the round engine knows it by."""

    __tablename__ = "workers"
    executor_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    host: Mapped[str] = mapped_column(sa.String(255))
    pid: Mapped[int]
    started_at: Mapped[dt.datetime] = mapped_column(default=now)
    seen_at: Mapped[dt.datetime] = mapped_column(default=now)


def open_engine(url: str, busy_timeout_ms: int = 5_000) -> sa.Engine:
    """An engine for `url`. On SQLite: WAL, and transactions begin IMMEDIATE, so that none dies of an upgrade."""
    if not url.startswith("sqlite"):
        return _open_postgres(url)
    engine = sa.create_engine(url, connect_args={"timeout": busy_timeout_ms / 1000})

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below is the only one
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        is_reader = connection.get_execution_options().get("readonly", False)
        connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")

    return engine


def _open_postgres(url: str) -> sa.Engine:
    """Each side notices within some ten seconds that the other's machine is gone. The system's two hours would leave a
    cut-off worker's locks on the rows that its successor has to change."""
    patience = {"keepalives_idle": 4, "keepalives_interval": 2, "keepalives_count": 2, "tcp_user_timeout": 10_000}
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=10, connect_args=patience)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.autocommit = True
        for name in ("idle", "interval", "count"):
            connection.execute(f"SET tcp_keepalives_{name} = {patience[f'keepalives_{name}']}")
        connection.autocommit = False

    return engine


@lru_cache(maxsize=1)
def engine() -> sa.Engine:
    """The process's engine on the configured database."""
    return open_engine(settings().database)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that writes: committed at the end, rolled back on any error."""
    with sessionmaker(engine(), expire_on_commit=False).begin() as session:
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A session that only reads; on SQLite it never waits for a writer."""
    reader = engine().execution_options(readonly=True)
    with sessionmaker(reader, expire_on_commit=False)() as session:
        yield session


def lock_project(session: Session, project_id: int) -> None:
    """Whoever else calls this for the project waits until the transaction ends. SQLite has one writer anyway.

    Who has added rows of the project may call it too: a lock that excludes such rows would make two who did both wait
    for the other.
    """
    session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def project_named(session: Session, name: str) -> Project:
    """The project of that name, or an error that lists the known ones."""
    project = session.scalar(sa.select(Project).where(Project.name == name))
    if project is None:
        known = ", ".join(session.scalars(sa.select(Project.name).order_by(Project.name))) or "none yet"
        raise UnknownProject(name=name, known=known)
    return project

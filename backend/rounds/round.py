"""The round: the order of things, as a durable workflow. Every step may run again and converges to the same state."""

from typing import Any

import sqlalchemy as sa
import structlog
from dbos import DBOS

from backend.database import Event, Project, Round, now, transaction
from backend.errors import NextbatchError, RoundCancelled
from backend.logs import about
from backend.rounds import (
    alarms,
    analyse,
    atlas,
    challenge,
    changeover,
    changes,
    choose,
    drift,
    encoding,
    graph,
    jobs,
    learn,
    mirror,
    restock,
    saving,
    source,
)
from backend.rounds.queue import QUERY
from backend.rounds.steps import reason_of, step
from backend.scoring.stages import Speed

log = structlog.get_logger()


@DBOS.workflow(name="round", max_recovery_attempts=20)
def run_round(project_id: int, number: int) -> dict[str, Any]:
    """One turn of the loop. Ids in, a small report out; arrays stay in the stores."""
    with about(project=project_id, round=number, run=DBOS.workflow_id):
        return _in_order(project_id, number)


def _in_order(project_id: int, number: int) -> dict[str, Any]:
    try:
        begin(project_id, number)
        labels = sync(project_id, number)
        encoded = encode_items(project_id, number)
        version = learn_head(project_id, number)
        batch = choose_batch(project_id, number)
        published = publish(project_id, number)
        stocked = restock_pool(project_id, number)
        return finish(project_id, number, {**labels, **encoded, **version, **batch, **published, **stocked})
    except Exception as failure:
        fail(project_id, number, reason_of(failure))
        raise


@DBOS.workflow(name="query", max_recovery_attempts=20)
def run_query(project_id: int, number: int) -> dict[str, Any]:
    """Answer a query: a round that looks into the pool's source first, and publishes nothing."""
    with about(project=project_id, round=number, run=DBOS.workflow_id):
        return answer_query(project_id, number)


def answer_query(project_id: int, number: int) -> dict[str, Any]:
    """The steps of a query in order; also without the engine, for a command that answers in its own process."""
    try:
        begin(project_id, number, claims_events=False)
        known = take_in(project_id, number)
        encoded = encode_items(project_id, number)
        version = learn_head(project_id, number)
        batch = choose_batch(project_id, number)
        return finish(project_id, number, {**known, **encoded, **version, **batch})
    except Exception as failure:
        fail(project_id, number, reason_of(failure))
        raise


@step("begin")
def begin(project_id: int, number: int, *, claims_events: bool = True) -> None:
    """Claim the events so far: what they tell of is read by this round. A query leaves them to the next round.

    An encoder that is ready is in use from here on, and no other moment of a round changes it.
    """
    with transaction() as session:
        _stop_if_unwanted(session, project_id, number)
        if claims_events:
            session.execute(
                sa.update(Event)
                .where(Event.project_id == project_id, Event.round_number.is_(None))
                .values(round_number=number)
            )
        project = session.get_one(Project, project_id)
        changes.follow_champion(session, project)
        changes.switch(session, project, number)
        _update(session, project_id, number, state="running", step="begin", started_at=now(), failure=None)
    log.info("round.began", claims_events=claims_events)


@step("sync")
def sync(project_id: int, number: int) -> dict[str, Any]:
    """Pull tasks and annotations that are new, changed or gone. Converges: each is known by its id."""
    _enter(project_id, number, "sync")
    return source.sync(project_id)


@step("take_in")
def take_in(project_id: int, number: int) -> dict[str, Any]:
    """What a query must know: the labels so far, and what the pool's source holds."""
    _enter(project_id, number, "sync")
    return {**source.sync(project_id), **restock.take_in(project_id)}


@step("encode")
def encode_items(project_id: int, number: int) -> dict[str, Any]:
    """Encode what has no embedding yet. Vectors are keyed by content, so a repetition finds them."""
    _enter(project_id, number, "encode")
    encoding.settle(project_id)
    return jobs.encode(project_id, _progress(project_id, number))


@step("learn")
def learn_head(project_id: int, number: int) -> dict[str, Any]:
    """Fit, evaluate, promote or refuse. One version a round: a repetition finds it."""
    _enter(project_id, number, "learn")
    return learn.learn(project_id, number)


@step("choose")
def choose_batch(project_id: int, number: int) -> dict[str, Any]:
    """Predict the pool and select. One batch a round: a repetition finds it."""
    _enter(project_id, number, "choose")
    return choose.choose(project_id, number)


@step("publish")
def publish(project_id: int, number: int) -> dict[str, Any]:
    """Put the batch in front of people, and read it back."""
    _enter(project_id, number, "publish")
    return source.publish(project_id, number)


@step("restock")
def restock_pool(project_id: int, number: int) -> dict[str, Any]:
    """While people label: know and encode what is new in the pool's source, and look closely at the model."""
    _enter(project_id, number, "restock")
    stocked = restock.restock(project_id)
    if stocked:
        jobs.encode(project_id, _progress(project_id, number))
    graph.refresh(project_id)
    atlas.refresh(project_id)
    return {**stocked, **look_closely(project_id, number)}


LOOKS = (
    drift.watch,
    analyse.analyse,
    challenge.decide,
    saving.tell,
    changeover.judge,
    changeover.put_away,
    mirror.reflect,
)


def look_closely(project_id: int, number: int) -> dict[str, Any]:
    """At what came in, at the model, and at its challenger. None of it can fail the round: people have their batch."""
    found: dict[str, Any] = {}
    for look in LOOKS:
        try:
            found |= look(project_id, number)
        except NextbatchError as problem:
            log.warning("round.not_looked_at", what=look.__module__, problem=str(problem))
    return found


@step("finish")
def finish(project_id: int, number: int, report: dict[str, Any]) -> dict[str, Any]:
    """Close the round's books."""
    with transaction() as session:
        _update(session, project_id, number, state="done", step="", progress={}, report=report, finished_at=now())
    log.info("round.done", **report)
    return report


@step("fail")
def fail(project_id: int, number: int, reason: str) -> None:
    """Say why the round ended early, and give its events back, so that a later round is asked for.

    A round that somebody cancelled keeps them: asked for again at once, it would not be cancelled.
    """
    with transaction() as session:
        cancelled = sa.update(Round).where(Round.project_id == project_id, Round.number == number, Round.is_unwanted)
        end = {"state": "cancelled", "finished_at": now()}
        if session.connection().execute(cancelled.values(end)).rowcount:
            log.info("round.cancelled")
            return
        session.execute(
            sa.update(Event)
            .where(Event.project_id == project_id, Event.round_number == number)
            .values(round_number=None)
        )
        _update(session, project_id, number, state="failed", failure=reason, finished_at=now())
        message = f"Round {number} failed: {reason}"
        is_query = sa.exists().where(Round.project_id == project_id, Round.number == number, Round.trigger == QUERY)
        if session.scalar(sa.select(is_query)):
            return  # whoever asked is told
        mend = "It is asked for again after a rest. nextbatch doctor looks for the cause."
        alarms.write(session, project_id, "warn", "round_failed", message, mend=mend)
    log.error("round.failed", reason=reason)


def _enter(project_id: int, number: int, name: str) -> None:
    with transaction() as session:
        _update(session, project_id, number, step=name, progress={})
        log.info("round.step", step=name)
        _stop_if_unwanted(session, project_id, number)


def _stop_if_unwanted(session: sa.orm.Session, project_id: int, number: int) -> None:
    """Raises RoundCancelled once somebody cancelled the round: at a step's begin, and about once a second of a scan."""
    mine = sa.select(Round.is_unwanted).where(Round.project_id == project_id, Round.number == number)
    if session.scalar(mine):
        raise RoundCancelled(number=number)


def _progress(project_id: int, number: int) -> jobs.Tell:
    """A reporter of the running step: how much is done, and how fast that goes."""

    def report(done: int, total: int, speed: Speed) -> None:
        with transaction() as session:
            _update(session, project_id, number, progress={"done": done, "total": total, **speed.as_dict()})
            _stop_if_unwanted(session, project_id, number)

    return report


def _update(session: sa.orm.Session, project_id: int, number: int, **values: Any) -> None:
    session.execute(sa.update(Round).where(Round.project_id == project_id, Round.number == number).values(**values))

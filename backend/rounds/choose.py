"""Choose the next batch: what is left of the old one, a uniform random slice for the holdout, the strategy's picks."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

import strategies
from backend.database import Batch, ModelVersion, Pick, Project, Round, reading, transaction
from backend.learning import registry
from backend.learning.heads import Head
from backend.pool.catalog import Candidates, Labelled, candidates, labelled
from backend.rounds import challenge, changes, checks
from backend.rounds.batch import Drawn, left_over, nearest_known, predictions, put_first, save_batch
from backend.rounds.encoding import Embeddings, open_embeddings
from backend.rounds.hand import wishes
from backend.rounds.inputs import OF_A_MODEL, request_inputs
from backend.rounds.likes import Like, find_targets
from backend.rounds.opinions import merged, second_opinions
from backend.rounds.queries import Query
from backend.rounds.votes import contested
from backend.settings import ProjectConfig
from backend.studio.labels import LabelTask
from strategies import Needs
from strategies.auto import COVERAGE


def round_seed(project_seed: int, number: int) -> int:
    """A seed of its own for each round: 63 bits of a hash."""
    return int.from_bytes(hashlib.sha256(f"{project_seed}:{number}".encode()).digest()[:8], "big") >> 1


def draw(
    pool: Candidates,
    excluded: frozenset[int],
    strategy: strategies.Strategy,
    config: ProjectConfig,
    size: int,
    is_first: bool,
    seed: int,
    inputs: Mapping[str, Any],
    again: frozenset[int] = frozenset(),
) -> tuple[list[Drawn], strategies.Selection]:
    """`size` items of the pool: the random slice first decided, then the strategy on what is left, both interleaved.

    inputs: the arrays of a `strategies.Request` that are known, aligned with `pool.ids`.
    again: candidates that have labels already, which the random slice leaves alone.
    Returns the items in rank order and the strategy's own answer.
    """
    random_size = _random_size(config, size, is_first)
    closed = excluded | again
    base = strategies.Request(ids=pool.ids, budget=random_size, seed=seed ^ 1, excluded=closed)  # its own draw
    slice_ = strategies.run(strategies.create("random"), base)
    propensity = len(slice_) / max(1, len(pool.ids) - len(closed))
    barred = excluded | frozenset(slice_.ids.tolist())
    strategy, policy = _usable(strategy, inputs)
    request = strategies.Request(ids=pool.ids, budget=size - len(slice_), seed=seed, excluded=barred, **inputs)
    chosen = strategies.run(strategy, request)
    if policy:
        chosen = replace(chosen, diagnostics={**chosen.diagnostics, "policy": policy})
    picks = [
        Drawn(int(id_), float(utility), float(chance), reason, False)
        for id_, utility, chance, reason in zip(
            chosen.ids, chosen.utilities, chosen.propensities, chosen.reasons, strict=True
        )
    ]
    holdout = [
        Drawn(int(id_), math.nan, propensity, "drawn uniformly at random, to measure the model", True)
        for id_ in slice_.ids
    ]
    return _interleave(picks, holdout, seed), chosen


def _usable(strategy: strategies.Strategy, inputs: Mapping[str, Any]) -> tuple[strategies.Strategy, str]:
    """The strategy, or coverage while it lacks a model or something to look for; and in that case why."""
    lacks = ""
    if inputs.keys().isdisjoint(("probabilities", "deviations")) and strategy.needs & OF_A_MODEL:
        lacks = "a model, and there is none yet"
    elif "targets" not in inputs and Needs.TARGETS in strategy.needs:
        lacks = "labels that a model gets wrong, and there are none"
    if not lacks:
        return strategy, ""
    return strategies.create(COVERAGE), f"Coverage ({COVERAGE}): {strategy.name} needs {lacks}."


def _random_size(config: ProjectConfig, size: int, is_first: bool) -> int:
    share = config.batch.holdout_share
    if share == 0:
        return 0
    least = config.batch.first_holdout if is_first else 0
    return min(size // 2 if size > 1 else 0, max(least, math.ceil(share * size)))


def _interleave(picks: Sequence[Drawn], extra: Sequence[Drawn], seed: int) -> list[Drawn]:
    """Put `extra` at random ranks, so that people who stop early label both kinds."""
    total = len(picks) + len(extra)
    places = set(np.random.default_rng(seed).permutation(total)[: len(extra)].tolist())
    first, second = iter(extra), iter(picks)
    return [next(first) if rank in places else next(second) for rank in range(total)]


def choose(project_id: int, number: int) -> dict[str, Any]:
    """Make the round's batch. An exhausted pool makes a shorter one, or an empty one: that is an ordinary state."""
    with reading() as session:
        project = session.get_one(Project, project_id)
    embeddings = open_embeddings(project)
    with reading() as session:
        round_ = session.scalars(sa.select(Round).where(Round.project_id == project_id, Round.number == number)).one()
        made = session.scalar(sa.select(Batch).where(Batch.round_id == round_.id))
        if made is not None:
            return _report(session, made)
        query = Query.of(round_)
        config = project.settings if query is None else query.applied(project.settings)
        needs_task = config.needs_tasks and query is None
        wished = wishes(session, project_id, needs_task)
        kept = [pick for pick in left_over(session, project_id) if pick.item_id not in wished.never and query is None]
        limits = (config.feedback.votes_against, config.batch.size, needs_task)
        disputed = contested(session, project_id, *limits)
        disputed = {id_: why for id_, why in disputed.items() if id_ not in {*wished.never, *wished.first}}
        question = LabelTask.parse(project.label_config).question
        known = labelled(session, project_id, question)
        version = changes.choosing(session, project_id, embeddings.digest)
        before = sa.exists().where(Batch.project_id == project_id, Batch.state != "answered")
        is_first = not session.scalar(sa.select(before))
    like = Like.of(round_.like)
    head = registry.load_head(version) if version is not None else None
    if head is not None and head.task != question.task:  # people are asked another kind of question by now
        head = version = None
    strategy = strategies.create(config.strategy.name, **config.strategy.parameters)
    strategies.check_task(strategy, question.task)
    targets, policy = None, ""
    if like.checks:
        return _choose_checks(project, round_, version, head, known, embeddings)
    if like:
        targets, policy = find_targets(like, embeddings, known, head, question)
        kept = [pick for pick in kept if pick.is_random_slice or pick.item_id in wished.first]
        strategy = strategy if Needs.TARGETS in strategy.needs else strategies.create("similar")
    if query is None:
        kept = put_first(kept, dict.fromkeys(wished.first, "put first by hand") | disputed)
    asked, seed = strategy.needs | strategy.uses, round_seed(config.seed, number)
    pool, again = _pool(project_id, needs_task, is_voted=Needs.VOTES in asked and head is not None)
    train = [row for row in known if not row.is_holdout]
    penalty = 0.0 if version is None else float(version.lineage["penalty"])
    inputs = request_inputs(
        project_id, question, asked, config.strategy, embeddings, pool, train, head, penalty, seed, targets
    )
    size = max(0, config.batch.size - len(kept))
    excluded = frozenset(pick.item_id for pick in kept) | (wished.never & frozenset(pool.ids.tolist()))
    drawn, selection = draw(pool, excluded, strategy, config, size, is_first, seed, inputs, again)
    if policy:
        selection = replace(selection, diagnostics={**selection.diagnostics, "policy": policy})

    place = {int(id_): row for row, id_ in enumerate(pool.ids)}
    shown = [new.item_id for new in drawn] + [pick.item_id for pick in kept if pick.item_id in place]
    rows = inputs["embeddings"][[place[id_] for id_ in shown]]
    predicted = dict(zip(shown, predictions(head, rows), strict=True))
    like_known = nearest_known(embeddings, train, shown, rows)
    for pick in kept:
        predicted.setdefault(pick.item_id, pick.prediction)
    with transaction() as session:
        batch = save_batch(session, project, round_, version, kept, drawn, predicted, selection, like_known)
        if version is not None:
            challenge.note_answers(session, project, batch, version, shown, rows, predictions)
        return _report(session, batch)


def _pool(project_id: int, needs_task: bool, *, is_voted: bool) -> tuple[Candidates, frozenset[int]]:
    """What may be picked; with votes also labelled items that somebody else could label, and which those are."""
    with reading() as session:
        pool = candidates(session, project_id, needs_task)
        if not is_voted:
            return pool, frozenset()
        again = second_opinions(session, project_id)
    return merged(pool, again), frozenset(again.ids.tolist())


def _choose_checks(
    project: Project,
    round_: Round,
    version: ModelVersion | None,
    head: Head | None,
    known: Sequence[Labelled],
    embeddings: Embeddings,
) -> dict[str, Any]:
    """A batch of labels to check, in the place of picks. What is left of the holdout's slice stays."""
    config, penalty = project.settings, 0.0 if version is None else float(version.lineage["penalty"])
    seed = round_seed(config.seed, round_.number)
    found = checks.find_suspects(known, head, embeddings, penalty, seed)
    found = (checks.with_tasks(found) if config.needs_tasks else found)[: config.batch.size]
    assert head is not None
    answers = predictions(head, embeddings.gather([one.item.content_hash for one in found]))
    drawn = [Drawn(one.item.item_id, 1 - one.belief, 1.0, one.reason, False) for one in found]
    with transaction() as session:
        kept = [pick for pick in left_over(session, project.id) if pick.is_random_slice]
        predicted = {pick.item_id: pick.prediction for pick in kept}
        predicted |= dict(zip([one.item.item_id for one in found], answers, strict=True))
        batch = save_batch(session, project, round_, version, kept, drawn, predicted, None, {})
        batch.strategy, batch.policy = checks.STRATEGY, f"As asked: {len(found)} labels that the model contradicts."
        return _report(session, batch)


def _report(session: Session, batch: Batch) -> dict[str, Any]:
    size = session.scalar(sa.select(sa.func.count()).select_from(Pick).where(Pick.batch_id == batch.id))
    return {"batch": batch.version, "size": size, "strategy": batch.strategy, "policy": batch.policy}

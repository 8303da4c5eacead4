"""A round with a challenger: both say what they think of the batch, and the books say which one people were shown."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import Batch, Item, ModelChange, ModelVersion, Pick, Project, reading, transaction
from backend.errors import NextbatchError
from backend.learning import registry
from backend.learning.challenge import answering, is_challengers, withdraw
from backend.learning.evaluate import Comparison
from backend.learning.heads import Head
from backend.rounds import alarms
from backend.rounds.comparison import compare

log = structlog.get_logger()

Say = Callable[[Head, NDArray[Any]], list[dict[str, Any] | None]]

_LEVEL = 0.025  # of a false promotion, and as much of a false withdrawal, over all looks


def note_answers(
    session: Session,
    project: Project,
    batch: Batch,
    champion: ModelVersion,
    items: Sequence[int],
    embeddings: NDArray[Any],
    say: Say,
) -> None:
    """Write down whose prediction each pick of the batch shows; with a challenger, what the other one said.

    items: those with embeddings (n, d), predicted by the champion. `say` turns a head and rows into what is shown. A
    challenger of another encoder, or one that cannot be read, says nothing.
    """
    mine = sa.update(Pick).where(Pick.batch_id == batch.id, Pick.prediction.is_not(None))
    session.execute(mine.values(model=champion.name))
    _, rival = answering(session, project.id)
    if rival is None or rival.encoder_digest != champion.encoder_digest or not len(items):
        return
    try:
        said = dict(zip(items, say(registry.load_head(rival), embeddings), strict=True))
    except NextbatchError as problem:
        log.warning("challenge.head_unreadable", version=rival.name, problem=str(problem))
        return
    share = project.settings.challenger.share
    rows = session.execute(
        sa.select(Pick, Item.key).join(Item, Item.id == Pick.item_id).where(Pick.batch_id == batch.id)
    )
    for pick, key in rows:
        answer = said.get(pick.item_id)
        if answer is None:
            continue
        if is_challengers(key, rival.name, share):
            pick.shadow = {**(pick.prediction or {}), "version": champion.name}
            pick.prediction, pick.model = answer, rival.name
        else:
            pick.shadow = {**answer, "version": rival.name}


def decide(project_id: int, number: int) -> dict[str, Any]:
    """Compare challenger and champion on the holdout, where enough labels came since the last look.

    The looks are at n labels, 2n, 4n, …, and look k may spend 2⁻ᵏ of the error that is allowed, so that a challenger
    that is no better is promoted in at most 2.5 % of cases, however long it stays. By hand, people are told.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        champion, rival = answering(session, project_id)
        if champion is None or rival is None:
            return {}
        begun = sa.select(sa.func.max(ModelChange.id)).where(
            ModelChange.version_id == rival.id, ModelChange.action == "challenge"
        )
        looked = sa.select(sa.func.count()).where(
            ModelChange.version_id == rival.id,
            ModelChange.action == "look",
            ModelChange.id > (session.scalar(begun) or 0),
        )
        looks = session.scalar(looked) or 0
        try:
            found = compare(session, rival, champion)
        except NextbatchError as problem:
            log.warning("challenge.not_compared", version=rival.name, problem=str(problem))
            return {}
    rules = project.settings.challenger
    if found is None or found.comparison.labels < rules.labels * 2**looks:
        return {"challenger": rival.name}
    level = _LEVEL / 2 ** (looks + 1)
    verdict = _verdict(found.comparison, level)
    _write(project_id, number, rival, champion, found.comparison, verdict, is_rule=rules.decide == "rule")
    return {"challenger": rival.name, "challenger_is": verdict}


def _verdict(found: Comparison, level: float) -> str:
    """Better, worse, or undecided, where each of the first two is false with a chance of `level` at most."""
    return "better" if found.p_better <= level else "worse" if found.p_worse <= level else "undecided"


def _write(
    project_id: int,
    number: int,
    rival: ModelVersion,
    champion: ModelVersion,
    found: Comparison,
    verdict: str,
    *,
    is_rule: bool,
) -> None:
    seen = f"{found.gap} beside {champion.name} on {found.labels} labels of the holdout"
    actor = f"rule, round {number}"
    with transaction() as session:
        registry.note(session, rival, actor, "look", seen)
        if verdict == "undecided":
            return
        if is_rule and verdict == "better":
            registry.promote(session, rival, actor)
        elif is_rule:
            withdraw(session, rival, actor, seen)
        done = {"better": "It answers now.", "worse": "It challenges no longer."}[verdict]
        asked = {
            "better": f"Promote it: nextbatch models promote … {rival.name}.",
            "worse": f"End it: nextbatch models challenge … {rival.name} --withdraw.",
        }[verdict]
        message = f"The challenger {rival.name} is {verdict} than the champion: {seen}. {done if is_rule else asked}"
        mend = done if is_rule else asked
        code = f"challenger_{verdict}"
        alarms.write(session, project_id, "note" if is_rule else "warn", code, message, evidence=seen, mend=mend)
    log.info("challenge.decided", project=project_id, version=rival.name, verdict=verdict, seen=seen)

"""A batch's rows: what is left of the one before, what leads the next, and its picks with what a model says of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

import strategies
from backend.database import Annotation, Batch, Item, ModelVersion, Pick, Project, Round, lock_project
from backend.learning.heads import Head
from backend.pool.catalog import Labelled
from backend.rounds.encoding import Embeddings
from strategies import Task, kernels

MOST_COMPARED = 1_000  # picks that get a nearest labelled item: nobody reads more pages than those fill


@dataclass(frozen=True)
class Drawn:
    """One item for the batch, before it has a rank."""

    item_id: int
    utility: float
    propensity: float
    reason: str
    is_random_slice: bool


def left_over(session: Session, project_id: int) -> list[Pick]:
    """Picks of the published batch that nobody annotated, in rank order."""
    touched = sa.select(Annotation.item_id).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    return list(
        session.scalars(
            sa.select(Pick)
            .join(Batch, Batch.id == Pick.batch_id)
            .join(Item, Item.id == Pick.item_id)
            .where(Batch.project_id == project_id, Batch.state == "published")
            .where(Item.state == "encoded", Pick.item_id.not_in(touched))
            .order_by(Batch.number.desc(), Pick.rank)
        )
    )


def put_first(kept: Sequence[Pick], first: Mapping[int, str]) -> list[Pick]:
    """The picks with `first` in front, in that order; those that were in no batch yet come in for the reason given."""
    known = {pick.item_id: pick for pick in kept}
    front = [known.get(id_) or Pick(item_id=id_, reason=why, is_random_slice=False) for id_, why in first.items()]
    return front + [pick for id_, pick in known.items() if id_ not in first]


def predictions(head: Head | None, embeddings: NDArray[Any]) -> list[dict[str, Any] | None]:
    """What the head says of each row, to show to people: its label, how sure it is, and its five best probabilities, or
    the deviation of a number."""
    if head is None:
        return [None] * len(embeddings)
    answers: list[dict[str, Any] | None] = []
    is_number = head.task == Task.REGRESSION
    for row in head.predict(embeddings):
        best = np.argsort(-row, kind="stable")[:5]
        answers.append(
            {
                "label": head.label_of(row),
                "confidence": round(head.confidence(row), 4),
                "probabilities": {} if is_number else {head.classes[k]: round(float(row[k]), 4) for k in best},
                **({"deviation": float(f"{row[1]:.4g}")} if is_number else {}),
            }
        )
    return answers


def nearest_known(
    embeddings: Embeddings, known: Sequence[Labelled], item_ids: Sequence[int], rows: NDArray[Any]
) -> dict[int, int]:
    """The item of `known` that each of these items is most like, by id, for people to compare; of many the first 1,000.

    rows: the items' embeddings (n, d). Likeness is the cosine from the known items' mean. O(n · known · d).
    """
    if not known:
        return {}
    points = embeddings.gather([row.content_hash for row in known])
    project = kernels.fit_projection(points, points.shape[1])
    like, _ = kernels.most_like(points, project, project(rows[:MOST_COMPARED]), 2)
    found: dict[int, int] = {}
    for item_id, places in zip(item_ids, like.tolist(), strict=False):
        others = (known[at].item_id for at in places)
        other = next((one for one in others if one != item_id), None)  # itself, where it is asked for again
        if other is not None:
            found[item_id] = other
    return found


def save_batch(
    session: Session,
    project: Project,
    round_: Round,
    version: ModelVersion | None,
    kept: Sequence[Pick],
    drawn: Sequence[Drawn],
    predicted: Mapping[int, dict[str, Any] | None],
    selection: strategies.Selection | None,
    nearest: Mapping[int, int],
) -> Batch:
    """Write the batch, its picks and the holdout's new members in one transaction."""
    lock_project(session, project.id)
    latest = session.scalar(sa.select(sa.func.max(Batch.number)).where(Batch.project_id == project.id))
    number = (latest or 0) + 1
    diagnostics = dict(selection.diagnostics) if selection is not None else {}
    batch = Batch(
        project_id=project.id,
        round_id=round_.id,
        number=number,
        version=f"{version.name if version else 'v0'}+b{number}",
        model_version_id=version.id if version else None,
        strategy=str(diagnostics.get("chosen") or diagnostics.get("strategy") or project.settings.strategy.name),
        policy=str(diagnostics.get("policy", "")),
        state="answered" if round_.query else "selected",
    )
    session.add(batch)
    session.flush()
    for rank, pick in enumerate(kept):
        session.add(
            Pick(
                batch_id=batch.id,
                rank=rank,
                item_id=pick.item_id,
                utility=pick.utility,
                propensity=pick.propensity,
                reason=pick.reason,
                is_random_slice=pick.is_random_slice,
                is_kept=pick.batch_id is not None,
                prediction=predicted.get(pick.item_id),
                nearest_id=nearest.get(pick.item_id),
            )
        )
    for rank, new in enumerate(drawn, start=len(kept)):
        session.add(
            Pick(
                batch_id=batch.id,
                rank=rank,
                item_id=new.item_id,
                utility=_finite(new.utility),
                propensity=_finite(new.propensity),
                reason=new.reason,
                is_random_slice=new.is_random_slice,
                prediction=predicted.get(new.item_id),
                nearest_id=nearest.get(new.item_id),
            )
        )
    session.execute(
        sa.update(Item)
        .where(Item.id.in_([new.item_id for new in drawn if new.is_random_slice]))
        .values(is_holdout=True)
    )
    return batch


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

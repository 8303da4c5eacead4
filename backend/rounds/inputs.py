"""What a strategy is given in a round: the arrays of its request, and none that it does not ask for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Item, reading
from backend.errors import StrategyFieldMissing
from backend.learning import committee
from backend.learning.heads import Head
from backend.pool.catalog import Candidates, Labelled, chunks
from backend.questions import Question
from backend.rounds import full_models, opinions
from backend.rounds.encoding import Embeddings
from backend.rounds.likes import MOST_TARGETS
from backend.settings import StrategySection
from strategies import Needs, Task

OF_A_MODEL = Needs.PROBABILITIES | Needs.LOGITS | Needs.SAMPLES | Needs.LINEAR_HEAD | Needs.DEVIATIONS
"""What there is only once a head is fitted."""

_SAMPLE_BYTES = 2**30
_FEWEST, _MOST = 10, 100  # heads in a committee: as many as fit into the bytes above


def request_inputs(
    project_id: int,
    question: Question,
    asked: Needs,
    section: StrategySection,
    embeddings: Embeddings,
    pool: Candidates,
    known: Sequence[Labelled],
    head: Head | None,
    penalty: float,
    seed: int,
    targets: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Arrays of a `strategies.Request`, aligned with ``pool.ids``; without a head only embeddings and labels.

    known: labelled items that may be trained on; where an item has no one class, the labelled classes are all 0.
    targets: (t, d), what the round was asked to find the like of; by default the items of `known` that a head which
    was not fitted to them gets wrong, if there are any and items have one class.
    """
    rows = embeddings.gather(pool.hashes)
    has_class = question.task == Task.CLASSIFICATION
    place = {} if head is None else {label: column for column, label in enumerate(head.classes)}
    known = [row for row in known if head is None or (row.label in place if has_class else question.knows(row.label))]
    labelled = embeddings.gather([row.content_hash for row in known])
    classes = np.array([place.get(row.label, 0) for row in known], dtype=np.int64)
    source = section.samples
    if source == "models":
        inputs = model_inputs(asked & ~Needs.SAMPLES, head, penalty, rows, labelled, classes, seed)
        if head is not None and Needs.SAMPLES in asked:
            said = full_models.answers(project_id, section.models, pool, inputs["probabilities"], head.classes)
            inputs["samples"] = said
    else:
        inputs = model_inputs(asked, head, penalty, rows, labelled, classes, seed, source)
    inputs["task"] = question.task
    is_judged = Needs.VOTES in asked or (Needs.TARGETS in asked and targets is None)
    if head is not None and has_class and len(known) and is_judged:
        unseen = committee.held_out(head, labelled, classes, penalty, seed)
        if Needs.VOTES in asked:
            inputs |= _opinions(project_id, pool, known, unseen, inputs["probabilities"], head)
        if targets is None:
            targets = labelled[unseen.argmax(axis=1) != classes]
    if Needs.TARGETS in asked and targets is not None and len(targets):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(targets))[:MOST_TARGETS])
        inputs["targets"] = targets[chosen]
    if Needs.COSTS in asked and section.cost_field:
        inputs["costs"] = _costs(pool, section.cost_field)
    if Needs.GROUPS in asked and section.group_field:
        inputs["groups"] = np.unique(_field(pool, section.group_field), return_inverse=True)[1]
    return inputs


def model_inputs(
    asked: Needs,
    head: Head | None,
    penalty: float,
    embeddings: NDArray[Any],
    labelled: NDArray[Any],
    classes: NDArray[np.int64],
    seed: int,
    source: committee.Source = "bootstrap",
    said: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """What a head says of a pool's embeddings (n, d), beside the labelled ones (l, d) and their class indices (l,).

    said: the head's probabilities (n, K), where they are known.
    """
    inputs: dict[str, Any] = {
        "embeddings": embeddings,
        "labelled_embeddings": labelled,
        "labelled_classes": classes,
    }
    if head is None:
        return inputs
    if head.task == Task.REGRESSION:
        return inputs | {"deviations": head.predict(embeddings)[:, 1]}
    inputs |= {"probabilities": head.predict(embeddings) if said is None else said, "classes": len(head.classes)}
    if Needs.LOGITS in asked:
        inputs["logits"] = head.logits(embeddings)
    if Needs.LINEAR_HEAD in asked:
        inputs["head_weights"], inputs["head_bias"] = head.folded
        inputs |= {name: head.linear_inputs(inputs[name]) for name in ("embeddings", "labelled_embeddings")}
    if Needs.SAMPLES in asked and len(classes):
        members = int(np.clip(_SAMPLE_BYTES // (4 * max(1, len(embeddings)) * len(head.classes)), _FEWEST, _MOST))
        heads = committee.plausible(source, head, labelled, classes, penalty, members, seed)
        inputs["samples"] = committee.samples(heads, embeddings)
    return inputs


def _opinions(
    project_id: int,
    pool: Candidates,
    known: Sequence[Labelled],
    unseen: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    head: Head,
) -> dict[str, Any]:
    """Everybody's votes; and of labelled candidates what a head says that has not learned their label."""
    with reading() as session:
        votes = opinions.votes(session, project_id, pool.ids, head.classes)
    probabilities = probabilities.copy()
    place = {int(id_): row for row, id_ in enumerate(pool.ids)}
    for one, answer in zip(known, unseen, strict=True):
        if one.item_id in place:
            probabilities[place[one.item_id]] = answer
    return {"votes": votes, "probabilities": probabilities}


def _costs(pool: Candidates, field: str) -> NDArray[np.float64]:
    """What each item costs; NaN where its data does not say: such an item is not picked."""
    costs = np.full(len(pool.ids), np.nan)
    for at, value in enumerate(_field(pool, field)):
        try:
            costs[at] = float(value)
        except ValueError:
            continue
    return np.where(costs > 0, costs, np.nan)


def _field(pool: Candidates, field: str) -> list[str]:
    """A field of each item's data as text; empty where it is missing. Raises StrategyFieldMissing if it is in none."""
    found: dict[int, str] = {}
    for chunk in chunks(pool.ids.tolist()):
        with reading() as session:
            for id_, data in session.execute(sa.select(Item.id, Item.data).where(Item.id.in_(chunk))):
                if field in data:
                    found[id_] = str(data[field])
    if not found and len(pool.ids):
        raise StrategyFieldMissing(field=field)
    return [found.get(id_, "") for id_ in pool.ids.tolist()]

"""After the batch is out: how many labels the strategy saved, as far as the random slice can tell."""

from typing import Any

import numpy as np
import sqlalchemy as sa

from backend.database import Batch, ModelAdvice, ModelVersion, Pick, Project, reading, transaction
from backend.learning.saving import FEWEST, MOST_CLASSES, MOST_TIMES, Saving, estimate_saving
from backend.pool.catalog import labelled
from backend.rounds.encoding import open_embeddings
from backend.studio.labels import LabelTask
from strategies import Task

CRITERION = "labels saved"


def tell(project_id: int, _number: int) -> dict[str, Any]:
    """Keep with the newest version what the random slice says of labels saved. Run again, it writes the same."""
    with reading() as session:
        project = session.get_one(Project, project_id)
        newest = sa.select(ModelVersion).where(ModelVersion.project_id == project_id)
        version = session.scalar(newest.order_by(ModelVersion.number.desc()).limit(1))
        drawn_ids = set(
            session.scalars(
                sa.select(Pick.item_id)
                .join(Batch, Batch.id == Pick.batch_id)
                .where(Batch.project_id == project_id, Pick.is_random_slice)
            )
        )
        asked = LabelTask.parse(project.label_config)
        known = labelled(session, project_id, asked.question)
    if version is None:
        return {}
    if asked.task != Task.CLASSIFICATION:  # the two arms are compared by one class an item
        return {}
    classes = asked.choices
    place = {name: at for at, name in enumerate(classes)}
    known = [row for row in known if row.label in place]
    drawn = [row for row in known if row.is_holdout and row.item_id in drawn_ids]
    chosen = [row for row in known if not row.is_holdout]
    saving = None
    if len(drawn) >= FEWEST and chosen and len(classes) <= MOST_CLASSES:
        embeddings = open_embeddings(project)
        x, given = (embeddings.gather([row.content_hash for row in side]) for side in (chosen, drawn))
        y, truth = (np.array([place[row.label] for row in side], dtype=np.int64) for side in (chosen, drawn))
        saving = estimate_saving(x, y, given, truth, len(classes), seed=project.settings.seed)
    says = _too_few(len(drawn), len(classes)) if saving is None else _in_words(saving)
    with transaction() as session:
        kept = session.get(ModelAdvice, version.id)
        others = [] if kept is None else [one for one in kept.signals if one["criterion"] != CRITERION]
        if others:  # without them the curve's own advice would be missing
            signal = {"criterion": CRITERION, "says_stop": None, "says": says}
            session.merge(ModelAdvice(version_id=version.id, signals=[*others, signal]))
    return {} if saving is None else {"drawn_for_chosen": [saving.labels, saving.drawn]}


def _too_few(drawn: int, classes: int) -> str:
    if classes > MOST_CLASSES:
        return f"not enough to tell with {classes} classes"
    return f"not enough to tell: {drawn} of {FEWEST} labels of the random slice"


def _in_words(saving: Saving) -> str:
    def count(needed: int | None) -> str:
        return f"more than {MOST_TIMES * saving.labels:,}" if needed is None else f"{needed:,}"

    interval = f"{count(saving.low)} to {count(saving.high)}"
    return (
        f"{saving.labels:,} were given; drawn at random about {count(saving.drawn)} (95 % interval {interval}) would "
        f"have been needed for the same {saving.accuracy:.1%} of a plain head on the random slice"
    )

"""What people did with our predictions: accepted, changed or skipped, in how many seconds, per class and version."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import sqlalchemy as sa
from scipy.stats import binomtest, ttest_ind
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Pick
from backend.monitoring.finding import Finding
from backend.monitoring.suspicion import Suspicion

WINDOW = 100
FEWEST = 20
EFFECT = 0.05  # of the share accepted: a smaller fall is not told

Outcome = Literal["accepted", "changed", "skipped"]


@dataclass(frozen=True)
class Answer:
    """One pick that people were shown a prediction of: the version that said it, how sure it was, what they did."""

    version: str
    predicted: str
    probability: float
    outcome: Outcome
    seconds: float | None


@dataclass(frozen=True)
class Acceptance:
    """One class of one version, or all its classes (`label` ""); `low` and `high` are a 95 % interval of the share."""

    version: str
    label: str
    shown: int
    accepted: int
    changed: int
    skipped: int
    share: float
    low: float
    high: float
    median_s: float | None


def read(session: Session, project_id: int) -> tuple[list[Answer], list[int]]:
    """Answers in the order in which people gave them, and their annotations' ids. An item's first annotation counts.

    Picks that were labelled before they were shown, and those that were asked for a second time, are left out.
    """
    rows = session.execute(
        sa.select(
            Annotation.id, Annotation.item_id, Annotation.label, Annotation.lead_time_s, Pick.prediction, Pick.model
        )
        .join(Pick, Pick.item_id == Annotation.item_id)
        .join(Batch, Batch.id == Pick.batch_id)
        .where(Batch.project_id == project_id, Annotation.deleted_at.is_(None))
        .where(Pick.model != "", Annotation.created_at >= Batch.created_at)
        .order_by(Annotation.created_at, Annotation.external_id, Batch.number.desc())
    )
    answers: dict[int, tuple[Answer, int]] = {}
    for id_, item_id, label, seconds, prediction, model in rows:
        if not prediction or item_id in answers:
            continue
        predicted = str(prediction["label"])
        outcome: Outcome = "skipped" if label is None else "accepted" if label == predicted else "changed"
        sure = float(prediction.get("confidence", prediction["probabilities"].get(predicted, 0.0)))
        answers[item_id] = (Answer(model, predicted, sure, outcome, seconds), id_)
    return [one for one, _ in answers.values()], [id_ for _, id_ in answers.values()]


def tabulate(answers: Sequence[Answer]) -> list[Acceptance]:
    """A row for each version, the newest first, and below it one for each class that it predicted.

    The share is of those that people decided on, accepted or changed; its interval is Wilson's.
    """
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for one in answers:
        groups[one.version, ""].append(one)
        groups[one.version, one.predicted].append(one)
    return [
        _row(version, label, groups[version, label])
        for version, label in sorted(groups, key=lambda key: (-int(key[0].removeprefix("v") or 0), key[1]))
    ]


def check_acceptance(answers: Sequence[Answer], new: int) -> list[Suspicion]:
    """Whether people accept less than before, the newest 100 at most against all earlier, given what was claimed.

    A strategy asks for harder items as it learns, so the plain share falls by itself. Tested is the share accepted
    minus the probability that the prediction claimed, by Welch's t test, one-sided; a fall below 5 points is not told.
    Nothing where none of the last `new` answers is new, or below 20 on either side.

    Welch, *The generalization of "Student's" problem*, Biometrika 1947.
    """
    decided = [one for one in answers if one.outcome != "skipped"]
    recent = min(WINDOW, len(decided) // 2)
    if new < 1 or recent < FEWEST:
        return []
    beyond = np.array([(one.outcome == "accepted") - one.probability for one in decided])
    before, after = beyond[:-recent], beyond[-recent:]
    fall = float(before.mean() - after.mean())
    sure = [np.mean([one.probability for one in part]) for part in (decided[:-recent], decided[-recent:])]
    shares = [np.mean([one.outcome == "accepted" for one in part]) for part in (decided[:-recent], decided[-recent:])]
    fall = min(fall, float(shares[0] - shares[1]))  # a model that grew surer of what people accept anyway is no fall
    p = float(ttest_ind(after, before, equal_var=False, alternative="less").pvalue)
    return [
        Suspicion(
            p if fall >= EFFECT and np.isfinite(p) else 1.0,
            Finding(
                "warn",
                "acceptance_fell",
                "People accept fewer predictions than before, and than the model expects",
                f"{shares[0]:.0%} of {len(before)} before, {shares[1]:.0%} of the newest {recent}; the model "
                f"claimed {sure[0]:.0%} and {sure[1]:.0%}",
                "Look at what was changed: the items are of another kind, or the labels are meant otherwise.",
            ),
        )
    ]


def _row(version: str, label: str, answers: Sequence[Answer]) -> Acceptance:
    counts = {name: sum(one.outcome == name for one in answers) for name in ("accepted", "changed", "skipped")}
    decided = counts["accepted"] + counts["changed"]
    interval = binomtest(counts["accepted"], decided).proportion_ci(0.95, "wilson") if decided else None
    seconds = [one.seconds for one in answers if one.seconds is not None]
    return Acceptance(
        version=version,
        label=label,
        shown=len(answers),
        **counts,
        share=counts["accepted"] / decided if decided else 0.0,
        low=float(interval.low) if interval else 0.0,
        high=float(interval.high) if interval else 1.0,
        median_s=float(np.median(seconds)) if seconds else None,
    )

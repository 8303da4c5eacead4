"""Whether labels still mean what they meant: the errors of predictions that were made before the label, over time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from backend.monitoring.finding import Finding
from backend.monitoring.suspicion import FALSE_ALARMS, Suspicion

CONFIDENCES = (0.0005, 0.002, 0.01, 0.05)
WINDOW = 200
FEWEST = 20
_FEWEST_OF_A_CLASS = 4
_FEWEST_MIXED = 6  # errors between two classes, before and now; by their sum, so that the test stays honest


@dataclass(frozen=True)
class Judged:
    """A randomly drawn item: what a model that had not seen its label said, and what people said then."""

    predicted: str
    label: str

    @property
    def is_wrong(self) -> bool:
        return self.predicted != self.label


def check_errors(judged: Sequence[Judged], new: int) -> list[Suspicion]:
    """Two suspicions of a stream in the order of its labels, of which the last `new` were not looked at before.

    The error rate over time by ADWIN; and the errors of each class, and between each pair of classes, the newest 200 at
    most against those before, by Fisher's exact test with Bonferroni's correction: two classes whose meanings were
    exchanged are a fifth of the labels of ten classes, and all of their own. Nothing below 20 on either side.
    """
    recent = min(WINDOW, len(judged) // 2)
    if new < 1 or recent < FEWEST:
        return []
    return [_over_time(judged, new), _of_classes(judged[: len(judged) - recent], judged[len(judged) - recent :])]


def adwin_confidence(errors: Sequence[bool], new: int) -> float:
    """The smallest of ADWIN's confidences at which it finds that the error grew among the last `new`; 1 at none.

    Bifet & Gavaldà, *Learning from time-changing data with adaptive windowing*, SDM 2007: at confidence δ it is wrong
    with probability δ at most. O(n log n) for each of four confidences.
    """
    from river import drift

    detector: Any = drift.ADWIN  # it has no types
    for delta in CONFIDENCES:
        adwin = detector(delta=delta, clock=1)
        for at, is_wrong in enumerate(errors):
            before = adwin.estimation
            adwin.update(float(is_wrong))
            if adwin.drift_detected and adwin.estimation > before and at >= len(errors) - new:
                return delta
    return 1.0


def _over_time(judged: Sequence[Judged], new: int) -> Suspicion:
    errors = [one.is_wrong for one in judged]
    recent = min(WINDOW, len(errors) // 2)
    before, after = float(np.mean(errors[:-recent])), float(np.mean(errors[-recent:]))
    return Suspicion(
        adwin_confidence(errors, new),
        Finding(
            "warn",
            "errors_grew",
            "The model errs more on randomly drawn items than it did",
            f"{before:.0%} of {len(errors) - recent} before, {after:.0%} of the newest {recent}",
            "Look at the newest randomly drawn items: their kind changed, or how people label them.",
        ),
    )


def _of_classes(earlier: Sequence[Judged], recent: Sequence[Judged]) -> Suspicion:
    """Each class's errors, and for each pair of classes how often one is said of what people call the other."""
    names = sorted({one.label for one in (*earlier, *recent)})
    mixed = Counter(frozenset((one.label, one.predicted)) for one in (*earlier, *recent) if one.is_wrong)
    groups = [(frozenset((name,)), f"{name} wrong") for name in names]
    groups += [(pair, " and ".join(sorted(pair)) + " exchanged") for pair in mixed if mixed[pair] >= _FEWEST_MIXED]
    found: list[tuple[float, str, frozenset[str]]] = []
    for labels, what in groups:
        sides = [[_counts(one, labels) for one in part if one.label in labels] for part in (recent, earlier)]
        if min(map(len, sides)) < _FEWEST_OF_A_CLASS:
            continue
        (bad, good), (was_bad, was_good) = ((sum(side), len(side) - sum(side)) for side in sides)
        p = float(fisher_exact([[bad, good], [was_bad, was_good]], alternative="greater").pvalue)
        found.append((p, f"{what}: {was_bad} of {len(sides[1])} before, {bad} of the newest {len(sides[0])}", labels))
    found.sort(key=lambda one: one[0])
    told = [one for one in found if one[0] * len(found) <= FALSE_ALARMS] or found[:1]
    classes = sorted({name for _, _, labels in told[:3] for name in labels})
    return Suspicion(
        min(1.0, found[0][0] * len(found)) if found else 1.0,
        Finding(
            "warn",
            "class_errors_grew",
            f"The model errs more on {', '.join(map(repr, classes))} than it did",
            "; ".join(evidence for _, evidence, _ in told[:3]),
            "Ask the people who labelled these items what the label means to them: two labels may be exchanged.",
        ),
    )


def _counts(one: Judged, labels: frozenset[str]) -> bool:
    """Of one class every error counts; of a pair those that say the other one."""
    return one.is_wrong and (len(labels) == 1 or one.predicted in labels)

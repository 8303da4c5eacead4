"""What a test suspects: a finding, and the chance of it where nothing changed. Which ones are believed, together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.monitoring.drift import discoveries
from backend.monitoring.finding import Finding

FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Suspicion:
    """``p`` is the chance of as much or more without any change; 1 where the change is too small to matter."""

    p: float
    finding: Finding


def believed(suspected: Sequence[Suspicion]) -> list[Finding]:
    """The findings to tell, of all tests of one round, each with its p.

    By Benjamini and Hochberg at 5 %: where nothing changed at all, at most one round in twenty tells anything, however
    many tests it made; where something did, one finding in twenty is false, on average.
    """
    is_believed = discoveries([one.p for one in suspected], FALSE_ALARMS)
    return [
        replace(
            one.finding, evidence=f"{one.finding.evidence}; p = {one.p:.2g} by chance, one of {len(suspected)} tests"
        )
        for one, told in zip(suspected, is_believed, strict=True)
        if told
    ]

"""What a check found: how bad, what, by which evidence, and what mends it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warn", "stop"]


@dataclass(frozen=True)
class Finding:
    """``code`` is stable, for filters and for `validation.accept`; the other texts are for people.

    note: worth knowing. warn: somebody should look. stop: training on this would harm; the round ends here.
    """

    severity: Severity
    code: str
    what: str
    evidence: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what} ({self.evidence}). {self.mend}"

"""What a check saw, and how it is told: never with a secret in it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy as sa

from backend.settings import Settings

_SHORTEST_SECRET = 4  # hiding a shorter one would tell it by what else is hidden


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A fault has a `mend`; so has a note, which is no fault and yet worth a line.

    `is_mended`: --fix did it and the check, asked again, agrees. `is_checked` is False where something else is first.
    """

    check: str
    is_fault: bool
    what: str
    why: str = ""
    mend: str = ""
    is_mended: bool = False
    is_checked: bool = True
    repair: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    """What --fix does: safe, and the same when done twice."""

    def as_dict(self) -> dict[str, Any]:
        """All but `repair`, for JSON."""
        return {name: value for name, value in asdict(replace(self, repair=None)).items() if name != "repair"}

    def __str__(self) -> str:
        if self.is_mended:
            return f"mended  {self.check}: {self.what}"
        if not self.is_checked:
            return f"skipped {self.check}: {self.what}"
        if not self.mend:
            return f"ok      {self.check}: {self.what}"
        head = "FAULT  " if self.is_fault else "note   "
        return f"{head} {self.check}: {self.what}\n        why:  {self.why}\n        mend: {self.mend}"


def ok(what: str) -> Finding:
    return Finding("", False, what)


def note(what: str, why: str, mend: str) -> Finding:
    return Finding("", False, what, why, mend)


def fault(what: str, why: str, mend: str = "", repair: Callable[[], object] | None = None) -> Finding:
    """Without a `mend`, `repair` is one, and the reader is told of --fix."""
    return Finding("", True, what, why, mend or "Run: nextbatch doctor --fix", repair=repair)


def skipped(what: str) -> Finding:
    return Finding("", False, what, is_checked=False)


def told(error: Exception) -> str:
    """An error in one line. SQLAlchemy's own words are the driver's, without statement and parameters."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) or type(error).__name__


def without_secrets(finding: Finding, process: Settings) -> Finding:
    """The finding with every secret of the settings blotted out, wherever a message picked it up."""

    def blot(text: str) -> str:
        for secret in _secrets(process):
            text = text.replace(secret, "***")
        return text

    return replace(finding, what=blot(finding.what), why=blot(finding.why), mend=blot(finding.mend))


def _secrets(process: Settings) -> list[str]:
    """Longest first: one may be part of another."""
    kept = (process.password, process.webhook_secret, process.label_studio_api_key)
    values = {one.get_secret_value().strip() for one in kept if one is not None}
    for address in (process.database_url, process.url, process.label_studio_url):
        values |= {value for value in (_password(address),) if value}
    written = {form for value in values for form in (value, quote(value, safe=""), unquote(value))}
    return sorted((one for one in written if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)


def _password(address: str | None) -> str | None:
    try:
        return urlsplit(address or "").password
    except ValueError:
        return None

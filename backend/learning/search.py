"""Find model versions by what their cards say: words, and comparisons such as accuracy>0.8."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.errors import BadSearchTerm
from backend.learning import registry

_TERM = re.compile(r"([a-z_]+)(>=|<=|>|<|=)(.+)", re.DOTALL)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
}


def facts(version: ModelVersion) -> dict[str, Any]:
    """What can be compared: numbers, and texts such as `made`, in order as dates are written."""
    return {
        "number": version.number,
        "state": version.state,
        "made": version.created_at.isoformat(timespec="seconds"),
        "snapshot": version.snapshot,
        "encoder": version.encoder_digest,
        "head": version.head_digest,
        "seed": version.seed,
        **{name: value for name, value in version.metrics.items() if isinstance(value, str | int | float)},
        **{name: value for name, value in version.lineage.items() if isinstance(value, str | int | float)},
    }


def search(session: Session, project_id: int, terms: Sequence[str]) -> list[ModelVersion]:
    """Versions of which every term is true, newest first.

    A term is ``name>value`` (also >=, <, <=, =) on one of `facts`, or a word that occurs, in any case, in the
    version's name, tags, facts, or in the books of what was done with it. Raises BadSearchTerm.
    """
    parsed = [_parse(term) for term in terms]
    return [
        version
        for version in registry.versions(session, project_id)
        if all(is_true(session, version) for is_true in parsed)
    ]


def _parse(term: str) -> Callable[[Session, ModelVersion], bool]:
    found = _TERM.fullmatch(term.strip())
    if found is None:
        return lambda session, version: term.strip().lower() in _words(session, version)
    name, sign, given = found.groups()

    def is_true(_session: Session, version: ModelVersion) -> bool:
        known = facts(version)
        if name not in known:
            if name not in _known_names(known):
                raise BadSearchTerm(term=term, names=", ".join(sorted(known)))
            return False
        value = known[name]
        if isinstance(value, str):
            return _COMPARE[sign](value[: len(given)] if sign == "=" else value, given)
        try:
            return _COMPARE[sign](float(value), float(given))
        except ValueError:
            raise BadSearchTerm(term=term, names=", ".join(sorted(known))) from None

    return is_true


def _known_names(known: Mapping[str, Any]) -> set[str]:
    """Names that another version may have: one without labels in the holdout has no accuracy."""
    return {*known, "accuracy", "macro_f1", "log_loss", "calibration_error", "labels", "holdout", "source", "penalty"}


def _words(session: Session, version: ModelVersion) -> str:
    books = [
        f"{line.action} {line.actor} {line.detail}" for line in registry.changes(session, version.project_id, version)
    ]
    return "\n".join([version.name, *version.tags, *map(str, facts(version).values()), *books]).lower()

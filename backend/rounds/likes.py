"""What a round is asked to find the like of: given tasks, a class, or what the model gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.database import Item, Project, reading
from backend.errors import NothingToLookFor
from backend.learning import registry
from backend.learning.heads import Head
from backend.pool.catalog import Labelled
from backend.questions import Question
from backend.rounds.encoding import Embeddings
from backend.studio.labels import LabelTask

MOST_TARGETS = 50  # the search costs as much for each; of more, so many at random stand for all


@dataclass(frozen=True)
class Like:
    """What the batch shall be like: these items; labelled ones of a class; what the champion gets wrong of the holdout.

    A class and errors together are the errors on that class. Or it shall be labels to `check`.
    """

    items: tuple[int, ...] = ()
    label: str | None = None
    errors: bool = False
    checks: bool = False

    def __bool__(self) -> bool:
        return bool(self.items) or self.label is not None or self.errors or self.checks

    def as_dict(self) -> dict[str, Any]:
        asked = {"items": list(self.items), "label": self.label, "errors": self.errors, "checks": self.checks}
        return asked if self else {}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Like":
        """What `as_dict` wrote."""
        asked = {name: bool(stored.get(name)) for name in ("errors", "checks")}
        return cls(tuple(stored.get("items", ())), stored.get("label"), **asked)


def like(session: Session, project: Project, tasks: str = "", label: str | None = None, errors: bool = False) -> Like:
    """What a person asks for, in our terms; `tasks` are ids of Label Studio, with commas. Raises NothingToLookFor."""
    named = [task.strip() for task in tasks.split(",") if task.strip()]
    if odd := [task for task in named if not task.isdecimal()]:
        raise NothingToLookFor(problem=f"{odd[0]!r} is no task's id")
    asked = [int(task) for task in named]
    is_asked = (Item.project_id == project.id, Item.task_id.in_(asked))
    found = {row.task_id: row.id for row in session.execute(sa.select(Item.task_id, Item.id).where(*is_asked))}
    if strangers := [str(task) for task in asked if task not in found]:
        raise NothingToLookFor(problem=f"no item of {project.name} has the task {', '.join(strangers)}")
    asked_of = LabelTask.parse(project.label_config).question
    choices = asked_of.choices if asked_of.is_named else ()
    if label is not None and label not in choices:
        raise NothingToLookFor(problem=f"{label!r} is none of the classes {', '.join(choices)}")
    if errors and not asked_of.is_named:
        raise NothingToLookFor(problem="a number is never quite right, so there are no errors")
    if errors and registry.champion(session, project.id) is None:
        raise NothingToLookFor(problem="there is no model yet, which could be wrong")
    return Like(tuple(found[task] for task in asked), label, errors)


def find_targets(
    wanted: Like, embeddings: Embeddings, known: Sequence[Labelled], head: Head | None, asked: Question
) -> tuple[NDArray[Any], str]:
    """Embeddings (t, d) of what to find the like of, and what that is, in a sentence; `known` are all labelled items.
    Their labels answer the question `asked`.

    Raises NothingToLookFor where there is nothing of what is wanted.
    """
    parts: list[tuple[list[str], str]] = []
    if wanted.items:
        is_wanted = (Item.id.in_(wanted.items), Item.state == "encoded", Item.content_hash.is_not(None))
        with reading() as session:
            chosen = session.scalars(sa.select(Item.content_hash).where(*is_wanted).order_by(Item.id)).all()
        parts.append(([hash_ for hash_ in chosen if hash_], "chosen items"))
    same = [row for row in known if wanted.label is None or wanted.label in asked.names(row.label)]
    if wanted.errors:
        of = "" if wanted.label is None else f" of {wanted.label!r}"
        wrong = _wrong(head, embeddings, [row for row in same if row.is_holdout])
        parts.append((wrong, f"errors{of} on the holdout"))
    elif wanted.label is not None:
        parts.append(([row.content_hash for row in same if not row.is_holdout], f"items labelled {wanted.label!r}"))
    words = " and ".join(f"{len(set(found))} {what}" for found, what in parts)
    found = list(dict.fromkeys(hash_ for part, _ in parts for hash_ in part))
    if not found:
        raise NothingToLookFor(problem=f"there are {words}")
    return embeddings.gather(found), f"As asked: the like of {words}."


def _wrong(head: Head | None, embeddings: Embeddings, rows: Sequence[Labelled]) -> list[str]:
    """Content hashes of the labelled items that the head gets wrong."""
    if head is None:
        return []
    said = head.predict(embeddings.gather([row.content_hash for row in rows]))
    return [row.content_hash for one, row in zip(said, rows, strict=True) if head.label_of(one) != row.label]

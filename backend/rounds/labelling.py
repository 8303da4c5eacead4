"""Projects without Label Studio: made by the API, labelled through it. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Event, Item, Project, ProjectSettings, lock_project, now
from backend.errors import LabelConflict, NotLabelledHere, ProjectExists, UnknownItem, UnknownLabel
from backend.pool import catalog
from backend.rounds.items import refuse_unchecked
from backend.settings import (
    AnalysisSection,
    BatchSection,
    ChallengerSection,
    EncoderSection,
    FeedbackSection,
    FineTuneSection,
    HeadSection,
    Kind,
    LabelStudioSection,
    PoolSection,
    ProjectConfig,
    Section,
    StoppingSection,
    StrategySection,
    TriggerSection,
    ValidationSection,
)
from backend.studio.labels import LabelTask, image_config, text_config

_LABELLED = "ANNOTATIONS_CREATED"


class NewProject(Section):
    """A project to make: all of a project's YAML but what is Label Studio's. Without `labels` it is open: every label
    that comes becomes a choice."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    kind: Kind = "image"
    labels: tuple[str, ...] = ()
    is_inline: bool = Field(default=False, description="Items are texts themselves, not addresses of texts.")
    pool: PoolSection = PoolSection(source="api")
    encoder: EncoderSection = EncoderSection()
    fine_tune: FineTuneSection = FineTuneSection()
    head: HeadSection = HeadSection()
    batch: BatchSection = BatchSection()
    strategy: StrategySection = StrategySection()
    trigger: TriggerSection = TriggerSection()
    stopping: StoppingSection = StoppingSection()
    validation: ValidationSection = ValidationSection()
    analysis: AnalysisSection = AnalysisSection()
    challenger: ChallengerSection = ChallengerSection()
    feedback: FeedbackSection = FeedbackSection()
    seed: int = 0


@dataclass(frozen=True)
class Given:
    """A label that somebody gave an item (None: skipped it). The item is named by `uri` (or text), `key` or `item_id`.

    `id` is the caller's own id of this annotation: the same one again changes it. Without one, an annotator has one
    label of an item. `seconds` is how long it took.
    """

    label: str | None
    uri: str | None = None
    key: str | None = None
    item_id: int | None = None
    annotator: str | None = None
    id: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Stored:
    """How many labels were new, changed, and as they were."""

    new: int
    changed: int
    unchanged: int


def make_project(session: Session, new: NewProject) -> Project:
    """The project, made; or found, if it was made from the same. Raises ProjectExists, BadLabelConfig."""
    section = LabelStudioSection(labels=new.labels, kind=new.kind)
    given = {name: getattr(new, name) for name in NewProject.model_fields if name in ProjectConfig.model_fields}
    config = ProjectConfig(**given, label_source="api", label_studio=section)
    label_config = question(new.kind, new.labels, new.is_inline, is_open=not new.labels)
    found = session.scalar(sa.select(Project).where(Project.name == new.name))
    if found is not None:
        was = LabelTask.parse(found.label_config)
        is_same = was.is_open == (not new.labels) and was.is_inline == (new.is_inline and new.kind == "text")
        if not is_same or found.settings != config:
            raise ProjectExists(name=new.name)
        return found
    project = Project(name=new.name, config=config.model_dump(mode="json"), label_config=label_config)
    refuse_unchecked(project)
    session.add(project)
    session.flush()
    session.add(ProjectSettings(project_id=project.id, version=1, config=project.config))
    return project


def question(kind: Kind, labels: Sequence[str], is_inline: bool, is_open: bool) -> str:
    """What is asked of such items, in Label Studio's words: rounds read them, whoever labels."""
    return image_config(labels, is_open) if kind == "image" else text_config(labels, is_inline, is_open)


def store(session: Session, project: Project, given: Sequence[Given]) -> Stored:
    """Keep these labels, all or none, in one transaction. Idempotent.

    Where a batch is published they count towards the next round, as in Label Studio. Raises NotLabelledHere,
    UnknownItem, UnknownLabel, LabelConflict.
    """
    if project.settings.label_source != "api":
        raise NotLabelledHere(name=project.name)
    lock_project(session, project.id)
    session.refresh(project)
    _learn_choices(project, given)
    items = find_items(session, project, [(one.uri, one.key, one.item_id) for one in given], "labels")
    known = _known(session, project.id, items, given)
    latest = session.scalar(sa.select(sa.func.max(Annotation.external_id)).where(Annotation.project_id == project.id))
    next_id = max([latest or 0, *(one.id for one in given if one.id is not None)]) + 1
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    for place, (one, item_id) in enumerate(zip(given, items, strict=True)):
        found = known.get(one.id) if one.id is not None else known.get((item_id, one.annotator))
        if found is None:
            found = Annotation(project_id=project.id, item_id=item_id, external_id=one.id or next_id, created_at=now())
            next_id += one.id is None
            session.add(found)
            counts["new"] += 1
        elif found.item_id != item_id:
            problem = f"the id {one.id} is that of an annotation of another item"
            raise LabelConflict(place=f"labels.{place}", problem=problem)
        elif (found.label, found.annotator, found.deleted_at) == (one.label, one.annotator, None):
            counts["unchanged"] += 1
            continue
        else:
            counts["changed"] += 1
        found.label, found.annotator, found.lead_time_s = one.label, one.annotator, one.seconds
        found.updated_at, found.deleted_at = now(), None
        known[(item_id, one.annotator)] = known[found.external_id] = found
    session.flush()
    _tell(session, project.id, counts["new"] + counts["changed"])
    return Stored(**counts)


def find_items(
    session: Session, project: Project, named: Sequence[tuple[str | None, str | None, int | None]], what: str
) -> list[int]:
    """Ids of items by (uri or text, key, id), of which one is given each. Raises UnknownItem: `what` and its place."""
    keys = [key or (catalog.item_key(catalog.storable(uri)) if uri is not None else None) for uri, key, _ in named]
    by_key: dict[str, int] = {}
    for chunk in catalog.chunks({key for key in keys if key is not None}):
        rows = session.execute(sa.select(Item.key, Item.id).where(Item.project_id == project.id, Item.key.in_(chunk)))
        by_key.update((key, item_id) for key, item_id in rows)
    ids: set[int] = set()
    for part in catalog.chunks({item_id for *_, item_id in named if item_id is not None}):
        ids.update(session.scalars(sa.select(Item.id).where(Item.project_id == project.id, Item.id.in_(part))))
    found = []
    for place, ((*_, item_id), key) in enumerate(zip(named, keys, strict=True)):
        here = by_key.get(key) if key is not None else item_id if item_id in ids else None
        if here is None:
            raise UnknownItem(place=f"{what}.{place}", name=project.name)
        found.append(here)
    return found


def _learn_choices(project: Project, given: Sequence[Given]) -> None:
    """New labels of an open project become its choices; a closed one refuses them."""
    task = LabelTask.parse(project.label_config)
    new = [one.label for one in given if one.label is not None and one.label not in task.choices]
    if new and not task.is_open:
        raise UnknownLabel(label=new[0], choices=", ".join(task.choices))
    if new:
        labels = (*task.choices, *dict.fromkeys(new))
        project.label_config = question(task.kind, labels, task.is_inline, is_open=True)


def _known(
    session: Session, project_id: int, items: Sequence[int], given: Sequence[Given]
) -> dict[int | tuple[int, str | None], Annotation]:
    """What was said before: by its own id, and by item and annotator."""
    known: dict[int | tuple[int, str | None], Annotation] = {}
    mine = sa.select(Annotation).where(Annotation.project_id == project_id)
    for chunk in catalog.chunks(set(items)):
        for row in session.scalars(mine.where(Annotation.item_id.in_(chunk)).order_by(Annotation.updated_at)):
            known[(row.item_id, row.annotator)] = known[row.external_id] = row
    for ids in catalog.chunks({one.id for one in given if one.id is not None}):
        known.update({row.external_id: row for row in session.scalars(mine.where(Annotation.external_id.in_(ids)))})
    return known


def _tell(session: Session, project_id: int, count: int) -> None:
    """An event a label, where a batch is in people's hands: what starts rounds counts them."""
    has_batch = sa.exists().where(Batch.project_id == project_id, Batch.state == "published")
    if count and session.scalar(sa.select(has_batch)):
        at = {"project_id": project_id, "action": _LABELLED, "received_at": now(), "task_ids": [], "annotation_ids": []}
        session.execute(sa.insert(Event), [at] * count)

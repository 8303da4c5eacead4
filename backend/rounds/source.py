"""The label source of a round: pull what people did, publish what they shall do next, in Label Studio or by the API.

Labels that come to the API are in our table at once, and whoever labels reads the batch there: nothing is to be done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Annotation, Batch, Item, ModelVersion, Pick, Project, Round, now, reading, transaction
from backend.errors import MissingSetting
from backend.pool import catalog
from backend.settings import settings
from backend.studio import connect
from backend.studio import publish as publishing
from backend.studio import sync as syncing
from backend.studio.client import Studio
from backend.studio.labels import LabelTask


def open_studio() -> Studio:
    """Label Studio, with the address and the token of the environment."""
    process = settings()
    if process.label_studio_url is None or process.label_studio_api_key is None:
        name = "LABEL_STUDIO_URL" if process.label_studio_url is None else "LABEL_STUDIO_API_KEY"
        raise MissingSetting(
            name=name, mend="Set it to reach Label Studio; a personal access token is under your account."
        )
    return Studio(process.label_studio_url, process.label_studio_api_key.get_secret_value())


def sync(project_id: int) -> dict[str, Any]:
    """Pull new tasks, and annotations that were made, changed or deleted, whether or not an event told of them."""
    with reading() as session:
        project = session.get_one(Project, project_id)
        if project.settings.label_source == "api":
            return {}
        known = dict(
            session.execute(
                sa.select(Annotation.external_id, Annotation.updated_at).where(
                    Annotation.project_id == project_id, Annotation.deleted_at.is_(None)
                )
            ).all()  # a Result has keys(), which dict() would take for a mapping
        )
        studio_project_id = studio_project_id_of(project)
    task = LabelTask.parse(project.label_config)
    with open_studio() as studio:
        _pull_tasks(studio, project, task)
        pulled = syncing.pull(studio, studio_project_id, task, project.sync_cursor, known)
    with transaction() as session:
        new, changed = _store_annotations(session, project_id, pulled.annotations)
        catalog.mark_deleted(session, project_id, pulled.deleted)
        session.execute(sa.update(Project).where(Project.id == project_id).values(sync_cursor=pulled.cursor))
    return {"annotations_new": new, "annotations_changed": changed, "annotations_deleted": len(pulled.deleted)}


def publish(project_id: int, number: int) -> dict[str, Any]:
    """Publish the round's batch. Run again, it converges: what is there already is found by version and by key."""
    with reading() as session:
        project = session.get_one(Project, project_id)
        batch = session.scalars(
            sa.select(Batch)
            .join(Round, Round.id == Batch.round_id)
            .where(Round.project_id == project_id, Round.number == number)
        ).one()
        rows = session.execute(
            sa.select(Pick, Item)
            .join(Item, Item.id == Pick.item_id)
            .where(Pick.batch_id == batch.id)
            .order_by(Pick.rank)
        ).all()
        version = session.get(ModelVersion, batch.model_version_id) if batch.model_version_id else None
        again = _asked_again(session, batch, is_new=True)
        closed = _let_go(session, batch, again)
    report = {"published": batch.version, "model": version.name if version else None}
    if project.settings.label_source == "api":
        with transaction() as session:
            _mark_published(session, batch)
        return report
    task = LabelTask.parse(project.label_config)
    plan = publishing.PublishPlan(
        version=batch.version,
        mode=project.settings.publish,
        picks=tuple(
            publishing.PublishPick(
                key=item.key,
                task_id=item.task_id,
                data={**item.data, task.data_key: item.uri},
                # A model that has learned the first label would lend it weight.
                label=None if item.id in again else (pick.prediction or {}).get("label"),
                is_again=item.id in again,
            )
            for pick, item in rows
        ),
        closed=closed,
    )
    with open_studio() as studio:
        publication = publishing.publish(studio, studio_project_id_of(project), plan, task)
    with transaction() as session:
        for (_, item), task_id in zip(rows, publication.task_ids, strict=True):
            if item.task_id != task_id:
                session.execute(sa.update(Item).where(Item.id == item.id).values(task_id=task_id))
        _mark_published(session, batch)
    return report


def _mark_published(session: Session, batch: Batch) -> None:
    """People have this batch, and no other one, from now on."""
    others = sa.update(Batch).where(Batch.project_id == batch.project_id, Batch.state == "published")
    session.execute(others.where(Batch.id != batch.id).values(state="replaced"))
    published_at = sa.func.coalesce(Batch.published_at, now())
    session.execute(sa.update(Batch).where(Batch.id == batch.id).values(state="published", published_at=published_at))


def _asked_again(session: Session, batch: Batch, *, is_new: bool) -> frozenset[int]:
    """Items of the batch that had a label when they were picked: all that have one, as long as the batch is new."""
    picked = (
        sa.select(Pick.item_id)
        .join(Annotation, Annotation.item_id == Pick.item_id)
        .where(Pick.batch_id == batch.id, Annotation.deleted_at.is_(None), Annotation.label.is_not(None))
    )
    return frozenset(session.scalars(picked if is_new else picked.where(Annotation.created_at < batch.created_at)))


def _let_go(session: Session, batch: Batch, again: frozenset[int]) -> tuple[int, ...]:
    """Tasks of which the published batch before this one wants another label, and this one does not."""
    before = session.scalars(
        sa.select(Batch).where(Batch.project_id == batch.project_id, Batch.state == "published", Batch.id != batch.id)
    )
    items = {item_id for one in before for item_id in _asked_again(session, one, is_new=False)} - again
    tasks = session.scalars(sa.select(Item.task_id).where(Item.id.in_(items), Item.task_id.is_not(None)))
    return tuple(sorted(task for task in tasks if task is not None))


def import_tasks(
    studio: Studio,
    project: Project,
    tasks: Sequence[connect.TaskToImport],
    task: LabelTask,
    progress: Callable[[str], None] = lambda _line: None,
) -> None:
    """Make the tasks that are not there yet, and know every item's task."""
    task_ids = connect.import_tasks(studio, studio_project_id_of(project), tasks, task, progress)
    for chunk in catalog.chunks(task_ids.items(), catalog.INSERT_CHUNK):
        with transaction() as session:
            catalog.assign_tasks(session, project.id, dict(chunk))


def studio_project_id_of(project: Project) -> int:
    """Label Studio's id of the project. Raises MissingSetting before it is seeded."""
    if project.studio_project_id is None:
        raise MissingSetting(name="the Label Studio project", mend=f"Run: nextbatch seed configs/{project.name}.yaml")
    return project.studio_project_id


def _pull_tasks(studio: Studio, project: Project, task: LabelTask) -> None:
    """Know every task of the project as an item, and which tasks are gone; nothing is read while the counts agree."""
    studio_project_id = studio_project_id_of(project)
    have = sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project.id, Item.task_id.is_not(None))
    with reading() as session:
        if session.scalar(have) == studio.get(f"/api/projects/{studio_project_id}/")["task_number"]:
            return
    records = list(syncing.pull_tasks(studio, studio_project_id))
    with reading() as session:
        known = session.execute(
            sa.select(Item.key, Item.task_id).where(Item.project_id == project.id, Item.task_id.is_not(None))
        )
        taken = {key: task_id for key, task_id in known if task_id is not None}
    with transaction() as session:
        catalog.add_items(session, project.id, _unknown(records, task, taken))
        catalog.forget_tasks(session, project.id, {record.task_id for record in records})


def _unknown(
    records: Sequence[syncing.TaskRecord], task: LabelTask, taken: Mapping[str, int]
) -> Iterator[catalog.NewItem]:
    """Items of the tasks that have none; `taken` maps keys to tasks.

    People label each task, so of several with one text or address, and no key of ours, each is an item.
    """
    there = {record.task_id for record in records}
    owners = {key: task_id for key, task_id in taken.items() if task_id in there}
    known = set(owners.values())
    for record in records:
        if record.task_id not in known:
            given = record.data.get(task.data_key)
            uri = "" if given is None else catalog.storable(str(given))
            key = record.key or catalog.item_key(uri)
            if not record.key and key in owners:
                key = catalog.item_key(f"{uri}\0{record.task_id}")
            owners[key] = record.task_id
            yield catalog.NewItem(uri, record.data, record.task_id, key=key)


def _store_annotations(
    session: Session, project_id: int, records: tuple[syncing.AnnotationRecord, ...]
) -> tuple[int, int]:
    """Insert or update by id. Returns how many were new and how many had changed."""
    new = changed = 0
    for chunk in catalog.chunks(records):
        items = dict(
            session.execute(
                sa.select(Item.task_id, Item.id).where(
                    Item.project_id == project_id, Item.task_id.in_([record.task_id for record in chunk])
                )
            ).all()
        )
        known = {
            annotation.external_id: annotation
            for annotation in session.scalars(
                sa.select(Annotation).where(
                    Annotation.project_id == project_id,
                    Annotation.external_id.in_([record.annotation_id for record in chunk]),
                )
            )
        }
        for record in chunk:
            values = {
                "label": record.label,
                "annotator": record.annotator,
                "lead_time_s": record.lead_time_s,
                "updated_at": record.updated_at,
                "deleted_at": None,
            }
            annotation = known.get(record.annotation_id)
            if annotation is None and record.task_id in items:
                session.add(
                    Annotation(
                        project_id=project_id,
                        item_id=items[record.task_id],
                        external_id=record.annotation_id,
                        created_at=record.created_at,
                        **values,
                    )
                )
                new += 1
            elif annotation is not None and (
                annotation.updated_at != record.updated_at or annotation.deleted_at is not None
            ):
                for name, value in values.items():
                    setattr(annotation, name, value)
                changed += 1
    return new, changed

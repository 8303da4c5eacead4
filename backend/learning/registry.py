"""Model versions: what was learned, from what, and which one is asked. Rows in the database, heads as files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Batch, ModelChange, ModelVersion, Project, lock_project
from backend.errors import HeadUnreadable, NoEarlierVersion, UnknownVersion, VersionDeleted, VersionInUse
from backend.learning.heads import Head
from backend.learning.provenance import provenance, sha256_of
from backend.settings import settings


@dataclass(frozen=True)
class Lineage:
    """Where a head comes from: everything needed to make it again."""

    encoder_digest: str
    snapshot: str
    seed: int
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]


def head_path(digest: str) -> Path:
    """The file of the head with that digest; equal heads share it."""
    return settings().home / "heads" / f"{digest}.safetensors"


def encoder_path(digest: str) -> Path:
    """The network of the encoder with that digest."""
    return settings().home / "encoders" / digest / "model.onnx"


def snapshots() -> Path:
    """The folder of the data snapshots."""
    return settings().home / "snapshots"


def snapshot_path(digest: str) -> Path:
    """The file of the data snapshot with that digest."""
    return snapshots() / f"{digest}.jsonl.gz"


def loans() -> Path:
    """The folder of what the pool lent to fits."""
    return settings().home / "loans"


def loan_path(digest: str) -> Path:
    """The file of what the pool lent to a fit."""
    return loans() / f"{digest}.safetensors"


def files(version: ModelVersion) -> dict[str, Path]:
    """The version's files by name, whether or not they are there."""
    named = {"head": head_path(version.head_digest)}
    if version.snapshot:
        named["snapshot"] = snapshot_path(version.snapshot)
    if "loan" in version.lineage:
        named["loan"] = loan_path(version.lineage["loan"])
    return named


def load_head(version: ModelVersion) -> Head:
    """The version's head, checked against its digest."""
    return Head.load(head_path(version.head_digest), version.head_digest)


def save_head(head: Head) -> Path:
    """The head's file; one that is there and whole stays as it is, because versions have recorded its sha256."""
    path = head_path(head.digest)
    try:
        Head.load(path, head.digest)
    except HeadUnreadable:
        head.save(path)
    return path


def champion(session: Session, project_id: int) -> ModelVersion | None:
    """The version that answers: the newest promoted one."""
    return session.scalar(
        sa.select(ModelVersion)
        .where(ModelVersion.project_id == project_id, ModelVersion.state == "champion")
        .order_by(ModelVersion.number.desc())
        .limit(1)
    )


def record(session: Session, project_id: int, round_id: int, head: Head, origin: Lineage) -> ModelVersion:
    """The version that this round made; a round that is run again finds the one it made before."""
    made = session.scalar(sa.select(ModelVersion).where(ModelVersion.round_id == round_id))
    if made is not None:
        return made
    lock_project(session, project_id)  # a command of its own process may make one, or delete an equal one's file
    save_head(head)
    parent = champion(session, project_id)
    latest = session.scalar(sa.select(sa.func.max(ModelVersion.number)).where(ModelVersion.project_id == project_id))
    lineage = {**provenance(), **origin.lineage, "features": head.features, "classes": list(head.classes)}
    version = ModelVersion(
        project_id=project_id,
        round_id=round_id,
        number=(latest or 0) + 1,
        parent_id=parent.id if parent else None,
        encoder_digest=origin.encoder_digest,
        head_digest=head.digest,
        snapshot=origin.snapshot,
        seed=origin.seed,
        metrics=dict(origin.metrics),
        lineage=lineage,
    )
    lineage["files"] = {name: sha256_of(path) for name, path in files(version).items() if path.is_file()}
    session.add(version)
    session.flush()
    return version


def find(session: Session, project_id: int, name: str) -> ModelVersion:
    """The version of that name, such as ``v7``, "champion" or "challenger". Raises UnknownVersion, which lists some."""
    if name == "champion" and (found := champion(session, project_id)) is not None:
        return found
    of_project = ModelVersion.project_id == project_id
    if name == "challenger":
        rival = session.scalar(sa.select(ModelVersion).where(of_project, ModelVersion.state == name))
        if rival is not None:
            return rival
    number = name.removeprefix("v")
    if number.isdecimal() and len(number) < 10:
        version = session.scalar(sa.select(ModelVersion).where(of_project, ModelVersion.number == int(number)))
        if version is not None:
            return version
    newest = sa.select(ModelVersion.number).where(of_project).order_by(ModelVersion.number.desc()).limit(10)
    known = ", ".join(f"v{known}" for known in session.scalars(newest)) or "none yet"
    raise UnknownVersion(project=session.get_one(Project, project_id).name, name=name, known=known)


def versions(session: Session, project_id: int, tag: str | None = None, state: str | None = None) -> list[ModelVersion]:
    """The project's versions, newest first; only those with that tag, or in that state."""
    query = sa.select(ModelVersion).where(ModelVersion.project_id == project_id)
    if state is not None:
        query = query.where(ModelVersion.state == state)
    found = session.scalars(query.order_by(ModelVersion.number.desc()))
    return [version for version in found if tag is None or tag in version.tags]


def promote(session: Session, version: ModelVersion, actor: str, action: str = "promote") -> None:
    """Let `version` answer from now on; the champion before it retires. One transaction, with a line of the books.

    Raises VersionDeleted, HeadUnreadable. A version that is the champion already stays it, without a new line.
    """
    lock(session, version)
    if version.state == "champion":
        return
    check_there(version)
    before = champion(session, version.project_id)
    session.execute(
        sa.update(ModelVersion)
        .where(ModelVersion.project_id == version.project_id, ModelVersion.state == "champion")
        .where(ModelVersion.id != version.id)
        .values(state="retired")
    )
    version.state = "champion"
    session.add(version)
    note(session, version, actor, action, previous_id=before.id if before else None)


def check_there(version: ModelVersion) -> None:
    """Raises VersionDeleted, HeadUnreadable where the version could not answer."""
    if version.state == "deleted":
        raise VersionDeleted(version=version.name)
    load_head(version)


def rollback(session: Session, project_id: int, actor: str) -> tuple[ModelVersion, ModelVersion]:
    """Let the version answer that answered before the champion did. Returns (the one that left, the one that answers).

    Repeated, it goes further back. Raises NoEarlierVersion, HeadUnreadable.
    """
    version = earlier(session, project_id)
    left = champion(session, project_id)
    assert left is not None
    promote(session, version, actor, "rollback")
    return left, version


def earlier(session: Session, project_id: int) -> ModelVersion:
    """The version that answered before the champion did, to which a rollback goes. Raises NoEarlierVersion."""
    left = champion(session, project_id)
    if left is None:
        raise NoEarlierVersion(version="v0")
    for version_id in reversed(_before(session, left)):
        version = session.get_one(ModelVersion, version_id)
        if version.state != "deleted":
            return version
    raise NoEarlierVersion(version=left.name)


def refuse(session: Session, version: ModelVersion, actor: str) -> None:
    """Keep `version` for the record; its parent goes on answering."""
    version.state = "refused"
    session.add(version)
    note(session, version, actor, "refuse")


def tag(session: Session, version: ModelVersion, name: str, actor: str, *, remove: bool = False) -> None:
    """Give the version a tag, or take it away. To repeat it changes nothing."""
    lock(session, version)
    if (name in version.tags) is not remove:
        return
    version.tags = [kept for kept in version.tags if kept != name] if remove else sorted([*version.tags, name])
    session.add(version)
    note(session, version, actor, "untag" if remove else "tag", name)


def delete(session: Session, version: ModelVersion, actor: str) -> bool:
    """Delete the head, and the graph it was fitted with; record, snapshot and number stay. Returns whether it went.

    Versions that are equal share a file, which stays while one of them does. Raises VersionInUse for what answers,
    what the champion was compared with, and what people see predictions of.
    """
    lock(session, version)
    if version.state == "deleted":
        return False
    reason = _use(session, version)
    if reason is not None:
        raise VersionInUse(version=version.name, reason=reason[0], mend=reason[1])
    version.state = "deleted"
    session.add(version)
    note(session, version, actor, "delete")
    session.flush()
    if loan := version.lineage.get("loan"):
        others = versions(session, version.project_id)
        if not any(other.lineage.get("loan") == loan and other.state != "deleted" for other in others):
            loan_path(loan).unlink(missing_ok=True)
    is_shared = sa.exists().where(ModelVersion.head_digest == version.head_digest, ModelVersion.state != "deleted")
    if session.scalar(sa.select(is_shared)):
        return False
    head_path(version.head_digest).unlink(missing_ok=True)
    return True


def changes(session: Session, project_id: int, version: ModelVersion | None = None) -> list[ModelChange]:
    """What was done with the project's versions, or with one of them, oldest first."""
    query = sa.select(ModelChange).where(ModelChange.project_id == project_id).order_by(ModelChange.id)
    return list(session.scalars(query if version is None else query.where(ModelChange.version_id == version.id)))


def _use(session: Session, version: ModelVersion) -> tuple[str, str] | None:
    """What the version is used for, and what ends that; None where it is not in use."""
    if version.state == "champion":
        return "it is the champion", "Promote another version first."
    if version.state == "challenger":
        return "it challenges the champion", "End that first: nextbatch models challenge … --withdraw."
    answering = champion(session, version.project_id)
    if answering is not None and answering.parent_id == version.id:
        return f"it is the parent of the champion {answering.name}", f"Delete it when {answering.name} has retired."
    batch = session.scalar(
        sa.select(Batch).where(Batch.model_version_id == version.id, Batch.state.in_(("selected", "published")))
    )
    if batch is not None:
        return f"people are labelling its batch {batch.version}", "Delete it after the next round."
    return None


def _before(session: Session, version: ModelVersion) -> list[int]:
    """Ids of what answered before the champion `version`, the last one last; without books of that, its parent's.

    A promotion is put on top of a stack, and a rollback takes off what it left behind.
    """
    stack: list[int] = []
    for line in changes(session, version.project_id):
        if line.action == "promote":
            stack.append(line.version_id)
        elif line.action == "rollback" and line.version_id in stack:
            while stack[-1] != line.version_id:
                stack.pop()
    if stack and stack[-1] == version.id:
        return stack[:-1]
    return [] if version.parent_id is None else [version.parent_id]


def lock(session: Session, version: ModelVersion) -> None:
    """One change of a project's versions at a time, and `version` as it is now. SQLite has one writer anyway."""
    lock_project(session, version.project_id)
    if sa.inspect(version).persistent:
        session.refresh(version)


def note(
    session: Session,
    version: ModelVersion,
    actor: str,
    action: str,
    detail: str = "",
    previous_id: int | None = None,
) -> None:
    """A line of the books: who did what with the version."""
    line = ModelChange(project_id=version.project_id, version_id=version.id, action=action, actor=actor[:128])
    line.detail, line.previous_id = detail, previous_id
    session.add(line)

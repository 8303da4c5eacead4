"""Model versions: what was learned, from what, and which one is asked. Rows in the database, heads as files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.learning.heads import Head
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


def snapshots() -> Path:
    """The folder of the data snapshots."""
    return settings().home / "snapshots"


def load_head(version: ModelVersion) -> Head:
    """The version's head, checked against its digest."""
    return Head.load(head_path(version.head_digest), version.head_digest)


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
    head.save(head_path(head.digest))
    parent = champion(session, project_id)
    latest = session.scalar(sa.select(sa.func.max(ModelVersion.number)).where(ModelVersion.project_id == project_id))
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
        lineage=dict(origin.lineage),
    )
    session.add(version)
    session.flush()
    return version


def promote(session: Session, version: ModelVersion) -> None:
    """Let `version` answer from now on; the champion before it retires."""
    session.execute(
        sa.update(ModelVersion)
        .where(ModelVersion.project_id == version.project_id, ModelVersion.state == "champion")
        .where(ModelVersion.id != version.id)
        .values(state="retired")
    )
    version.state = "champion"
    session.add(version)


def refuse(session: Session, version: ModelVersion) -> None:
    """Keep `version` for the record; its parent goes on answering."""
    version.state = "refused"
    session.add(version)

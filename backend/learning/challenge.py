"""A challenger beside the champion: which one answers for an item, and who challenges. Torch-free: the web asks too."""

import hashlib

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import ModelVersion
from backend.errors import VersionInUse
from backend.learning import registry


def answering(session: Session, project_id: int) -> tuple[ModelVersion | None, ModelVersion | None]:
    """(the champion, its challenger), in one query; either may be missing."""
    query = sa.select(ModelVersion).where(ModelVersion.project_id == project_id)
    found = session.scalars(
        query.where(ModelVersion.state.in_(("champion", "challenger"))).order_by(ModelVersion.number)
    )
    by_state = {version.state: version for version in found}  # the newest of each state
    return by_state.get("champion"), by_state.get("challenger")


def is_challengers(item_key: str, challenger: str, share: float) -> bool:
    """Whether the challenger answers for this item: so for a `share` in [0, 1] of all items, always for the same ones.

    Another challenger gets others, so that no item is everybody's guinea pig.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{challenger}:{item_key}".encode()).digest()[:8], "big")
    return drawn < share * 2**64


def challenge(session: Session, version: ModelVersion, actor: str) -> None:
    """Let `version` score beside the champion from now on, in the place of any other challenger.

    Raises VersionInUse for the champion itself, VersionDeleted, HeadUnreadable.
    """
    registry.lock(session, version)
    if version.state == "challenger":
        return
    if version.state == "champion":
        raise VersionInUse(version=version.name, reason="it is the champion", mend="Name another version.")
    registry.check_there(version)
    _, before = answering(session, version.project_id)
    if before is not None:
        withdraw(session, before, actor)
    version.state = "challenger"
    session.add(version)
    registry.note(session, version, actor, "challenge")


def withdraw(session: Session, version: ModelVersion, actor: str, detail: str = "") -> None:
    """`version` challenges no longer; it stays for the record. To repeat it changes nothing."""
    registry.lock(session, version)
    if version.state == "challenger":
        version.state = "candidate"
        session.add(version)
        registry.note(session, version, actor, "withdraw", detail)

"""What other machines need of an encoder: a model repository for their Triton."""

from pathlib import Path

import sqlalchemy as sa

from backend.database import Project, reading
from backend.errors import NothingToExport
from backend.learning import encoders
from backend.rounds import changes
from backend.rounds.encoding import embeddings_of, open_embeddings
from backend.rounds.items import Named
from backend.scoring.stock import Device, write_stock_model
from backend.settings import settings


def export_repository(what: str, folder: Path, device: Device, instances: int) -> str:
    """Write an encoder, by its name or by that of a project, for a stock Triton; returns what Triton calls it.

    Of a project that changes its encoder, or tried to, it is the new one.

    Raises NothingToExport, PrecisionNotStock.
    """
    return write_stock_model(folder, _spec(what), device, instances)


def _spec(what: str) -> encoders.EncoderSpec:
    if what in encoders.names():
        return encoders.export(what, None, settings().home / "encoders", "fp32")
    with reading() as session:
        projects = {project.name: project for project in session.scalars(sa.select(Project))}
        if what not in projects:
            known = ", ".join(sorted(projects)) or "none yet"
            raise NothingToExport(name=what, encoders=", ".join(encoders.names()), known=known)
        change = changes.latest(session, projects[what].id)
    if change is not None and change.state in (*changes.OPEN, "failed"):  # a Triton must have it before it is in use
        return embeddings_of(Named.model_validate(change.encoder)).spec
    return open_embeddings(projects[what]).spec

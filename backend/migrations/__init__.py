"""The database's history: `upgrade()` brings any older one to the newest tables."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Apply what is missing up to `revision`. Safe to call from several processes: they wait for each other."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305808868229538401)"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

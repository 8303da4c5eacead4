"""The labelled item that a pick is most like, and what the learning curve advised with each version"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("picks", sa.Column("nearest_id", sa.Integer(), nullable=True))
    op.create_table(
        "model_advice",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("version_id"),
    )

"""Whose prediction a pick shows, what the other version said, and how often each was asked"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("picks", sa.Column("model", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("picks", sa.Column("shadow", sa.JSON(), nullable=True))
    op.create_table(
        "model_uses",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("version_id", "day"),
    )

"""Alerts say how sure they are and what to do, and are told to a webhook"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("alerts", sa.Column("evidence", sa.Text(), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("mend", sa.Text(), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("alerts", sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))  # old ones: never
    op.add_column("alerts", sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_alerts_due_at", "alerts", ["due_at"])

"""What somebody asked a round's batch to be like"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("like", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))

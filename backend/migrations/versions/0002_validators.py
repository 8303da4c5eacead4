"""What tells that an item changed, as its source last listed it"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("items", sa.Column("validator", sa.Text(), nullable=True))

"""The execution roles of sessions and of snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Widen the rows of sessions and snapshots."""
    for table in ("sessions", "snapshots"):
        op.add_column(table, sa.Column("execution_role_arn", sa.Text))

"""What sessions may use and have used, the images of hibernated ones, and snapshots."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Widen the sessions' rows, and make snapshots."""
    for column in _session_columns():
        op.add_column("sessions", column)
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("interpreter_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(26), nullable=False),
        sa.Column("name", sa.String(100)),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("sizes", sa.JSON, nullable=False),
        sa.Column("certificates", sa.JSON, nullable=False),
        sa.Column("filesystem_configurations", sa.JSON, nullable=False),
        sa.Column("host_id", sa.String(64), nullable=False),
        sa.Column("image_id", sa.String(26), nullable=False),
        sa.Column("image_bytes", sa.BigInteger, nullable=False),
        _moment("created_at"),
        _moment("expires_at"),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
    )
    op.create_index("ix_snapshots_listing", "snapshots", ["account_id", "created_at", "id"])
    op.create_index("ix_snapshots_expiry", "snapshots", ["expires_at"])


def _session_columns() -> "list[sa.Column[object]]":
    return [
        sa.Column("sizes", sa.JSON),
        sa.Column("started_from", sa.String(16)),
        sa.Column("image_id", sa.String(26)),
        sa.Column("image_bytes", sa.BigInteger),
        sa.Column("cpu_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("memory_peak_bytes", sa.BigInteger, nullable=False, server_default="0"),
    ]


def _moment(name: str) -> "sa.Column[datetime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)

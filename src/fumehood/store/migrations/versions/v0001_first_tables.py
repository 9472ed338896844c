"""The first tables."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the installation's row, interpreters, sessions and client tokens."""
    _make_installation()
    _make_interpreters()
    _make_sessions()
    _make_client_tokens()


def _make_installation() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        _moment("created_at"),
        sa.Column("page_token_key", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_one_row")),
    )


def _make_interpreters() -> None:
    op.create_table(
        "interpreters",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("execution_role_arn", sa.Text),
        sa.Column("network_configuration", sa.JSON, nullable=False),
        sa.Column("certificates", sa.JSON, nullable=False),
        sa.Column("filesystem_configurations", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("failure_reason", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_interpreters"),
    )
    existing = sa.text("status != 'DELETED'")
    op.create_index(
        "uq_interpreters_name",
        "interpreters",
        ["account_id", "name"],
        unique=True,
        sqlite_where=existing,
        postgresql_where=existing,
    )
    op.create_index("ix_interpreters_listing", "interpreters", ["account_id", "created_at", "id"])


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("interpreter_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("timeout_seconds", sa.Integer, nullable=False),
        _moment("created_at"),
        _moment("deadline_at"),
        _moment("updated_at"),
        _moment("ended_at", nullable=True),
        sa.Column("end_reason", sa.String(64)),
        sa.Column("end_detail", sa.Text),
        sa.Column("host_id", sa.String(64)),
        sa.Column("sandbox_id", sa.String(128)),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("certificates", sa.JSON, nullable=False),
        sa.Column("filesystem_configurations", sa.JSON, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    active = sa.text("status != 'terminated'")
    op.create_index("ix_sessions_listing", "sessions", ["account_id", "interpreter_id", "created_at", "id"])
    op.create_index("ix_sessions_active", "sessions", ["account_id"], sqlite_where=active, postgresql_where=active)
    op.create_index("ix_sessions_active_host", "sessions", ["host_id"], sqlite_where=active, postgresql_where=active)
    op.create_index("ix_sessions_ended", "sessions", ["ended_at"])


def _make_client_tokens() -> None:
    op.create_table(
        "client_tokens",
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("token", sa.String(256), nullable=False),
        sa.Column("parameters_sha256", sa.String(64), nullable=False),
        sa.Column("resource_id", sa.String(64), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("account_id", "operation", "token", name="pk_client_tokens"),
    )
    op.create_index("ix_client_tokens_created", "client_tokens", ["created_at"])


def _moment(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)

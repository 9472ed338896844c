"""The tables. Migrations must lead to exactly these; a test compares the two on both databases."""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from fumehood.store.text import ReportedText
from fumehood.store.timestamps import UtcTimestamp

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("page_token_key", LargeBinary, nullable=False),
)
"""One row: when this store was made, and the key that its pagination tokens are sealed with."""

interpreters = Table(
    "interpreters",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account_id", String(12), nullable=False),
    Column("name", String(48), nullable=False),
    Column("description", Text),
    Column("execution_role_arn", Text),
    Column("network_configuration", JSON, nullable=False),
    Column("certificates", JSON, nullable=False),
    Column("filesystem_configurations", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("failure_reason", Text),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
)
# A deleted interpreter keeps its row while a repeated request may ask what became of it; its name is free at once.
_existing = text("status != 'DELETED'")
Index(
    "uq_interpreters_name",
    interpreters.c.account_id,
    interpreters.c.name,
    unique=True,
    sqlite_where=_existing,
    postgresql_where=_existing,
)
Index("ix_interpreters_listing", interpreters.c.account_id, interpreters.c.created_at, interpreters.c.id)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("account_id", String(12), nullable=False),
    Column("interpreter_id", String(64), nullable=False),
    Column("name", String(100)),
    Column("status", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("timeout_seconds", Integer, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("deadline_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
    Column("ended_at", UtcTimestamp),
    Column("end_reason", String(64)),
    Column("end_detail", ReportedText),
    Column("host_id", String(64)),
    Column("sandbox_id", String(128)),
    Column("template", String(128), nullable=False),
    Column("certificates", JSON, nullable=False),
    Column("filesystem_configurations", JSON, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("execution_role_arn", Text),
    Column("sizes", JSON),
    Column("started_from", String(16)),
    Column("image_id", String(26)),
    Column("image_bytes", BigInteger),
    Column("cpu_seconds", Float, nullable=False, server_default="0"),
    Column("memory_peak_bytes", BigInteger, nullable=False, server_default="0"),
)
_active = text("status != 'terminated'")
Index("ix_sessions_listing", sessions.c.account_id, sessions.c.interpreter_id, sessions.c.created_at, sessions.c.id)
Index("ix_sessions_active", sessions.c.account_id, sqlite_where=_active, postgresql_where=_active)
Index("ix_sessions_active_host", sessions.c.host_id, sqlite_where=_active, postgresql_where=_active)
Index("ix_sessions_ended", sessions.c.ended_at)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("account_id", String(12), nullable=False),
    Column("interpreter_id", String(64), nullable=False),
    Column("session_id", String(26), nullable=False),
    Column("name", String(100)),
    Column("template", String(128), nullable=False),
    Column("sizes", JSON, nullable=False),
    Column("certificates", JSON, nullable=False),
    Column("filesystem_configurations", JSON, nullable=False),
    Column("host_id", String(64), nullable=False),
    Column("image_id", String(26), nullable=False),
    Column("image_bytes", BigInteger, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("execution_role_arn", Text),
)
Index("ix_snapshots_listing", snapshots.c.account_id, snapshots.c.created_at, snapshots.c.id)
Index("ix_snapshots_expiry", snapshots.c.expires_at)

client_tokens = Table(
    "client_tokens",
    metadata,
    Column("account_id", String(12), primary_key=True),
    Column("operation", String(64), primary_key=True),
    Column("token", String(256), primary_key=True),
    Column("parameters_sha256", String(64), nullable=False),
    Column("resource_id", String(64), nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
)
Index("ix_client_tokens_created", client_tokens.c.created_at)

"""Fixtures that several rooms' tests use."""

from databases import database, database_url, postgresql

__all__ = ["database", "database_url", "postgresql"]

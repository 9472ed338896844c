"""Alembic: the migrations that a database has not had yet. Imported only where there are any."""

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from fumehood.errors import ConfigurationError


def to_newest(connection: Connection) -> None:
    """Apply them in the connection's transaction. ConfigurationError if it has had one that is not known here."""
    try:
        command.upgrade(_configuration(connection), "head")
    except CommandError as error:
        raise ConfigurationError(
            f"The database was last used by another version of fumehood ({error}). Use that version or a later one."
        ) from error


def _configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", "fumehood.store:migrations")
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["connection"] = connection
    return configuration

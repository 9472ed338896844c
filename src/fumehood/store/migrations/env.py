"""What Alembic runs to migrate: on the connection, and in the transaction, that `store.migrate` gives it."""

from alembic import context

from fumehood.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

"""Alembic environment: runs on the connection that `Ledger.migrate` hands over."""

from alembic import context

from lake.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

"""Runs revisions on the connection that `sidecar.store.migrate` passes in, inside its transaction.

It opens nothing and configures no logging: whoever calls has the lock and decides about both."""

from __future__ import annotations

from alembic import context

from sidecar.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # also on SQLite, where the transaction was begun IMMEDIATE
)
with context.begin_transaction():
    context.run_migrations()

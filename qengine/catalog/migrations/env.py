"""Run by alembic: applies revisions on the connection that `upgrade` passes, within its transaction."""

from __future__ import annotations

from alembic import context

from qengine.catalog.migrations.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()

"""Runs migrations over the connection that it is given."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="edgeproxy_version", transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()

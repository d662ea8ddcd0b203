"""The revision of a database of ours, and the way to the newest one. Apart, since few processes make tables and alembic is large."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from edgeproxy.storage.database import VERSION_TABLE


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def is_current(connection: Connection) -> bool:
    """Whether every migration was made."""
    return _revision(connection) == ScriptDirectory.from_config(_config()).get_current_head()


def is_known(connection: Connection) -> bool:
    """Whether the last migration that was made is one of ours; one of a newer edgeproxy is not."""
    current = _revision(connection)
    return current is None or current in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def migrate(connection: Connection) -> None:
    """Make the migrations that are missing."""
    command.upgrade(_config(connection), "head")

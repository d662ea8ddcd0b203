"""Provisioned data in SQL."""

from edgeproxy.storage.database import Standing, check_database, lacking, made_at_start, prepare, require, told, upgrade
from edgeproxy.storage.routes import (
    DEFAULT_TABLES,
    OPTIONAL_TABLES,
    ColumnBlock,
    Keyless,
    RowBlock,
    Source,
    block,
    read_partitions,
    read_rows,
)
from edgeproxy.storage.url import open_engine, shown

__all__ = [
    "DEFAULT_TABLES",
    "OPTIONAL_TABLES",
    "ColumnBlock",
    "Keyless",
    "RowBlock",
    "Source",
    "Standing",
    "block",
    "check_database",
    "lacking",
    "made_at_start",
    "open_engine",
    "prepare",
    "read_partitions",
    "read_rows",
    "require",
    "shown",
    "told",
    "upgrade",
]

"""SQL for policies: one pool of connections a process, every answer bounded in time and rows."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.errors import LookupFailed, StorageError
from edgeproxy.storage.bounded import execute
from edgeproxy.storage.url import open_engine

MOST_ROWS = 1_000
_engines: dict[tuple[asyncio.AbstractEventLoop, str], AsyncEngine] = {}


def _engine(url: str) -> AsyncEngine:
    key = (asyncio.get_running_loop(), url)
    found = _engines.get(key)
    if found is None:
        found = _engines[key] = open_engine(url)
    return found


def import_driver(url: str) -> None:
    """Import what the first statement would have to: a URL that is wrong is told by that."""
    with contextlib.suppress(SQLAlchemyError, StorageError, ImportError, ValueError):
        open_engine(url)


async def close() -> None:
    """Close the connections of this loop."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _engines if key[0] is loop]:
        await _engines.pop(key).dispose()


async def fetch(url: str, statement: str, parameters: Mapping[str, Any], deadline_seconds: float) -> list[dict[str, Any]]:
    """Return the rows of a statement, each by its columns; raise `LookupFailed` for anything else."""
    if not url:
        raise LookupFailed("sql: there is no database here")
    try:
        async with asyncio.timeout(deadline_seconds), _engine(url).begin() as connection:
            result = await execute(connection, text(statement), parameters, deadline_seconds)
            if not result.returns_rows:
                return []
            rows = result.mappings().fetchmany(MOST_ROWS + 1)
    except TimeoutError:
        raise LookupFailed(f"sql: no answer within {deadline_seconds} s") from None
    except (SQLAlchemyError, OSError, StorageError) as error:
        # The first line says what was wrong; those behind it repeat statement and values, which may be secret.
        raise LookupFailed(f"sql: {str(error).splitlines()[0]}") from error
    if len(rows) > MOST_ROWS:
        raise LookupFailed(f"sql: more than {MOST_ROWS} rows")
    return [dict(row) for row in rows]

"""SQL for policies: one pool of connections a process, every answer bounded in time and rows."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from edgeproxy.errors import LookupFailed, StorageError
from edgeproxy.storage.url import open_engine

MOST_ROWS = 1_000
_INTERRUPT_SECONDS = 0.02
_engines: dict[tuple[asyncio.AbstractEventLoop, str], AsyncEngine] = {}


def _engine(url: str) -> AsyncEngine:
    key = (asyncio.get_running_loop(), url)
    found = _engines.get(key)
    if found is None:
        found = _engines[key] = open_engine(url)
    return found


async def close() -> None:
    """Close the connections of this loop."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _engines if key[0] is loop]:
        await _engines.pop(key).dispose()


async def _executed(
    connection: AsyncConnection, statement: str, parameters: Mapping[str, Any], deadline_seconds: float
) -> CursorResult[Any]:
    """Execute a statement; whoever waits no more makes SQLite end it too, whose thread would go on with it for as long as it takes."""
    if connection.dialect.name != "sqlite":
        return await connection.execute(text(statement), dict(parameters))
    # While it waits for the lock of another it hears of no interrupt.
    await connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(1, int(deadline_seconds * 1_000))}")
    work = asyncio.ensure_future(connection.execute(text(statement), dict(parameters)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # Interrupted it ends with a fault, unless it was done just then; either way the connection is free. Again and again: one
        # that has not reached SQLite yet is not interrupted.
        driver = cast(Any, (await connection.get_raw_connection()).driver_connection)
        while not work.done():
            await driver.interrupt()
            await asyncio.wait([work], timeout=_INTERRUPT_SECONDS)
        work.exception()
        raise


async def fetch(url: str, statement: str, parameters: Mapping[str, Any], deadline_seconds: float) -> list[dict[str, Any]]:
    """Return the rows of a statement, each by its columns; raise `LookupFailed` for anything else."""
    if not url:
        raise LookupFailed("sql: there is no database here")
    try:
        async with asyncio.timeout(deadline_seconds), _engine(url).begin() as connection:
            result = await _executed(connection, statement, parameters, deadline_seconds)
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

"""Statements with a deadline: whoever waits no more leaves no work behind, and no lock."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

_INTERRUPT_SECONDS = 0.02
_OF_DEADLINE = 0.9
"""How much of a deadline SQLite waits for the lock of another: its fault comes before the deadline does."""


async def execute(
    connection: AsyncConnection, statement: Executable, parameters: Mapping[str, Any], deadline_seconds: float
) -> CursorResult[Any]:
    """Execute a statement; whoever waits no more makes SQLite end it too, whose thread would go on with it and keep its lock."""
    if connection.dialect.name != "sqlite":
        return await connection.execute(statement, dict(parameters))
    # While it waits for the lock of another it hears of no interrupt.
    await connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(1, int(deadline_seconds * _OF_DEADLINE * 1_000))}")
    work = asyncio.ensure_future(connection.execute(statement, dict(parameters)))
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

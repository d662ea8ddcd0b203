"""What single keys may have: the table `edgeproxy_limits`."""

from collections.abc import Callable, Mapping

from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.storage.database import told
from edgeproxy.storage.peers import RowFault

_SOURCE = table("edgeproxy_limits", column("id"), column("limit_name"), column("limit_key"), column("most"))


async def read_limits(engine: AsyncEngine, limits: Mapping[str, Callable[[int], str]], faults: list[RowFault]) -> dict[str, dict[str, int]]:
    """Return how many keys may have, by the name of the limit; what cannot be used is told. Raise `StorageError`.

    `limits` are those with rows: what each says is wrong with a number, empty where nothing is.
    """
    found: dict[str, dict[str, int]] = {name: {} for name in limits}
    try:
        async with engine.connect() as connection:
            rows = await connection.stream(select(_SOURCE).order_by(_SOURCE.c.id), execution_options={"yield_per": 20_000})
            async for row in rows:
                name, key = str(row.limit_name or ""), str(row.limit_key or "")
                if name not in found:
                    faults.append(RowFault("edgeproxy_limits", str(row.id), "limit_name", f"no [limit.{name}] with rows = true"))
                elif not (text := str(row.most).strip()).isdecimal() or int(text) >= 1 << 32:
                    faults.append(RowFault("edgeproxy_limits", str(row.id), "most", f"expected 0 to 4294967295, got: {row.most}"))
                elif problem := limits[name](int(text)):
                    faults.append(RowFault("edgeproxy_limits", str(row.id), "most", problem))
                elif key in found[name]:
                    faults.append(RowFault("edgeproxy_limits", str(row.id), "limit_key", f"a second row of {name} {key}"))
                else:
                    found[name][key] = int(text)
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    return found

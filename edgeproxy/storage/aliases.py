"""Other names of users: the table `dbaliases`."""

from collections.abc import Sequence

from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.config.registrar import alias_problem
from edgeproxy.errors import StorageError
from edgeproxy.storage.database import told
from edgeproxy.storage.peers import RowFault

_SOURCE = table("dbaliases", column("id"), column("alias_username"), column("alias_domain"), column("username"), column("domain"))


async def read_aliases(engine: AsyncEngine, domains: Sequence[str], most: int, faults: list[RowFault]) -> dict[str, str]:
    """Return users by their aliases, both as `user@domain`; what cannot be used is told. Raise `StorageError`, also for more than `most`.

    A row without a domain is one of each of `domains`; a user without one is of the alias's.
    """
    found: dict[str, str] = {}
    domains = [domain.lower() for domain in domains]
    try:
        async with engine.connect() as connection:
            rows = await connection.stream(select(_SOURCE).order_by(_SOURCE.c.id), execution_options={"yield_per": 20_000})
            async for row in rows:
                own = str(row.alias_domain or "").strip().lower()
                for domain in [own] if own else domains:
                    alias = f"{str(row.alias_username or '').strip()}@{domain}"
                    user = f"{str(row.username or '').strip()}@{str(row.domain or '').strip().lower() or domain}"
                    if problem := alias_problem(alias):
                        faults.append(RowFault("dbaliases", str(row.id), "alias_username", problem))
                    elif problem := alias_problem(user):
                        faults.append(RowFault("dbaliases", str(row.id), "username", problem))
                    elif domain not in domains or user.rpartition("@")[2] not in domains:
                        faults.append(RowFault("dbaliases", str(row.id), "domain", f"not a domain that is served: {alias}, {user}"))
                    elif alias in found:
                        faults.append(RowFault("dbaliases", str(row.id), "alias_username", f"a second row of {alias}"))
                    else:
                        found[alias] = user
                        if len(found) > most:
                            raise StorageError(f"registrar.max_aliases: dbaliases has more than the {most} that are left")
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    return found

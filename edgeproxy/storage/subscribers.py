"""Credentials of subscribers, in the table `subscriber`."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.storage.database import require, told

_HASHES = ("ha1", "ha1_sha256", "ha1_sha512t256")
_AT_ONCE = 500
"""Users in one statement: some databases bound the number of parameters."""


class Credentials(NamedTuple):
    """What a user is known by; what is not there is empty."""

    password: str
    ha1: str
    ha1_sha256: str
    ha1_sha512t256: str


class SubscriberTable:
    """The table of one database."""

    def __init__(self, engine: AsyncEngine, columns: Sequence[str], password_column: str, use_domain: bool) -> None:
        self._engine = engine
        self._use_domain = use_domain
        self._password = password_column if password_column in columns else ""
        self._hashes = [name for name in _HASHES if name in columns]
        wanted = ["username", *(["domain"] if "domain" in columns else []), *self._hashes, *([self._password] if self._password else [])]
        self._source = table("subscriber", *(column(name) for name in dict.fromkeys(wanted)))

    @classmethod
    async def open(cls, engine: AsyncEngine, password_column: str, use_domain: bool) -> "SubscriberTable":
        """Open the table; raise `StorageError` where it is not there."""
        _, columns = await require(engine, "subscriber")
        return cls(engine, sorted(columns), password_column, use_domain)

    async def fetch(self, users: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Credentials]:
        """Return credentials by user and domain, without those that are not there; raise `StorageError`."""
        rows: dict[str, list[tuple[str, Credentials]]] = {}
        names = sorted({user for user, _ in users})
        try:
            async with self._engine.connect() as connection:
                for start in range(0, len(names), _AT_ONCE):
                    wanted = self._source.c.username.in_(names[start : start + _AT_ONCE])
                    found = await connection.execute(select(self._source).where(wanted))
                    for row in found.mappings():
                        text = {name: str(row.get(name) or "") for name in (*_HASHES, self._password) if name}
                        credentials = Credentials(text.get(self._password, ""), *(text.get(name, "") for name in _HASHES))
                        rows.setdefault(str(row["username"]), []).append((str(row.get("domain") or "").lower(), credentials))
        except (SQLAlchemyError, OSError) as error:
            raise told(self._engine, error) from error
        picked = {(user, domain): self._pick(rows.get(user, []), domain) for user, domain in users}
        return {key: credentials for key, credentials in picked.items() if credentials}

    def _pick(self, rows: list[tuple[str, Credentials]], domain: str) -> Credentials | None:
        """Return the row of a domain, or where the domain does not matter any."""
        own = next((credentials for name, credentials in rows if name == domain.lower()), None)
        return own or (None if self._use_domain or not rows else rows[0][1])

"""Bindings in the table `location`, as OpenSIPS has it."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import msgspec
from sqlalchemy import BigInteger, DateTime, bindparam, column, delete, insert, select, table, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

from edgeproxy.errors import RowRefused
from edgeproxy.storage.database import told

_COLUMNS = (
    "contact_id",
    "username",
    "domain",
    "contact",
    "received",
    "path",
    "expires",
    "q",
    "callid",
    "cseq",
    "last_modified",
    "flags",
    "cflags",
    "user_agent",
    "socket",
    "methods",
    "sip_instance",
    "kv_store",
)
_TYPES: dict[str, TypeEngine[Any]] = {"last_modified": DateTime(), "contact_id": BigInteger()}
"""Types that a driver does not guess rightly from a value."""
_AT_ONCE = 500
_RENAMED_AT_ONCE = 10_000
NAT_FLAG = "NAT"
"""What `cflags` has for a phone behind a NAT; flags of OpenSIPS that contain it count too, as `NAT_BFLAG`."""


class _Extra(msgspec.Struct):
    reg_id: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


class Binding(Protocol):
    """A binding as the engine tells it."""

    contact_id: int
    user: str
    domain: str
    contact: str
    received: str
    path: str
    expires: int
    q: int
    call_id: str
    cseq: int
    modified: int
    natted: bool
    user_agent: str
    socket: str
    instance: str
    reg_id: int


class LocationTable:
    """The table of one database; columns that it does not have are left out."""

    def __init__(self, engine: AsyncEngine, columns: Iterable[str]) -> None:
        self._engine = engine
        there = set(columns)
        self._source = table("location", *(column(name, _TYPES.get(name)) for name in _COLUMNS if name in there))

    async def read(self, now: int) -> AsyncIterator[dict[str, Any]]:
        """Yield what has not ended at `now` (seconds since 1970), by the names of the engine; raise `StorageError`."""
        try:
            async with self._engine.connect() as connection:
                found = await connection.stream(select(self._source), execution_options={"yield_per": 5_000})
                async for row in found.mappings():
                    try:
                        binding = _binding(row)
                    except (ValueError, OverflowError):
                        # One odd row keeps nobody from starting.
                        continue
                    if binding["expires"] > now:
                        yield binding
        except (SQLAlchemyError, OSError) as error:
            raise told(self._engine, error) from error

    async def write(self, rows: Sequence[Binding], gone: Sequence[int], *, plain: bool = False) -> None:
        """Put rows and remove others in one transaction; raise `RowRefused` where one of them cannot be put, else `StorageError`, and then nothing was changed.

        With `plain` User-Agents are written in ASCII, with question marks for what is none.
        """
        ids = [row.contact_id for row in rows] + list(gone)
        try:
            async with self._engine.begin() as connection:
                for start in range(0, len(ids), _AT_ONCE):
                    await connection.execute(delete(self._source).where(self._source.c.contact_id.in_(ids[start : start + _AT_ONCE])))
                if rows:
                    there = self._source.c
                    await connection.execute(
                        insert(self._source), [{k: v for k, v in _row(row, plain=plain).items() if k in there} for row in rows]
                    )
        except (SQLAlchemyError, OSError) as error:
            problem = told(self._engine, error)
            raise (RowRefused(str(problem)) if _is_of_a_row(error) else problem) from error

    async def rename(self, numbers: Sequence[tuple[int, int]], gone: Sequence[int]) -> None:
        """Give rows of another registrar the numbers that they have here, old and new, and remove others; raise `StorageError`."""
        own = self._source.c.contact_id
        renamed = (
            update(self._source).where(own == bindparam("old", type_=BigInteger())).values(contact_id=bindparam("new", type_=BigInteger()))
        )
        # A row of ours that has such a number already is an older one.
        removed = [*gone, *(new for _, new in numbers)]
        try:
            async with self._engine.begin() as connection:
                for start in range(0, len(removed), _AT_ONCE):
                    await connection.execute(delete(self._source).where(own.in_(removed[start : start + _AT_ONCE])))
                for start in range(0, len(numbers), _RENAMED_AT_ONCE):
                    part = numbers[start : start + _RENAMED_AT_ONCE]
                    await connection.execute(renamed, [{"old": old, "new": new} for old, new in part])
        except (SQLAlchemyError, OSError) as error:
            raise told(self._engine, error) from error

    async def sweep(self, before: int) -> None:
        """Remove what ended before a time (seconds since 1970); raise `StorageError`."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(delete(self._source).where(self._source.c.expires < before, self._source.c.expires > 0))
        except (SQLAlchemyError, OSError) as error:
            raise told(self._engine, error) from error


def _is_of_a_row(error: Exception) -> bool:
    """Whether a database refused what a row says. One that is locked, full, read-only or gone would refuse any."""
    if isinstance(error, DataError | IntegrityError):
        return True
    # PostgreSQL's driver has few classes; its codes (SQL:2023 part 2, subclause 24.1) tell data and integrity from the rest.
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return str(state)[:2] in {"22", "23"}


def _seconds(value: object) -> int:
    """Return seconds since 1970 of what a column holds: a number, a time, or the text of one."""
    if isinstance(value, datetime):
        return int(value.replace(tzinfo=value.tzinfo or UTC).timestamp())
    text = str(value or 0)
    try:
        return int(float(text))
    except ValueError:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _preference(value: object) -> int:
    """Return q in thousandths; OpenSIPS writes -1 where a phone gave none, which is as much as any (RFC 3261 section 20.10)."""
    found = float(str(value)) if value is not None else -1.0
    return 1_000 if found < 0 else min(1_000, round(found * 1_000))


def _binding(row: Mapping[Any, Any]) -> dict[str, Any]:
    received, flags = str(row.get("received") or ""), str(row.get("cflags") or "")
    expires = _seconds(row["expires"])
    return {
        "contact_id": int(row["contact_id"]) & 0x7FFF_FFFF_FFFF_FFFF,
        "user": str(row["username"]),
        "domain": str(row.get("domain") or ""),
        "contact": str(row["contact"]),
        "received": received,
        "path": str(row.get("path") or ""),
        # OpenSIPS writes 0 for one that never ends.
        "expires": expires or 2**31 - 1,
        "q": _preference(row.get("q")),
        "call_id": str(row.get("callid") or ""),
        "cseq": int(row.get("cseq") or 0) & 0xFFFF_FFFF,
        "modified": max(0, _seconds(row.get("last_modified"))),
        "natted": NAT_FLAG in flags.upper(),
        "user_agent": str(row.get("user_agent") or ""),
        "socket": str(row.get("socket") or ""),
        "instance": str(row.get("sip_instance") or ""),
        "reg_id": _reg_id(row.get("kv_store")),
    }


def _reg_id(text: object) -> int:
    """Return the number of a flow (RFC 5626), which OpenSIPS has no column for: `reg_id` of the JSON object in `kv_store`."""
    try:
        return msgspec.json.decode(str(text or "{}"), type=_Extra).reg_id
    except msgspec.DecodeError:
        return 0


def _row(row: Binding, *, plain: bool) -> dict[str, Any]:
    return {
        "contact_id": row.contact_id,
        "username": row.user,
        "domain": row.domain,
        "contact": row.contact,
        "received": row.received or None,
        "path": row.path or None,
        "expires": row.expires,
        "q": row.q / 1_000,
        "callid": row.call_id,
        "cseq": row.cseq,
        "last_modified": datetime.fromtimestamp(row.modified, UTC).replace(tzinfo=None),
        "flags": 0,
        "cflags": NAT_FLAG if row.natted else None,
        "user_agent": row.user_agent.encode("ascii", "replace").decode() if plain else row.user_agent,
        "socket": row.socket,
        "methods": None,
        "sip_instance": row.instance or None,
        "kv_store": msgspec.json.encode(_Extra(row.reg_id)).decode() if row.reg_id else None,
    }

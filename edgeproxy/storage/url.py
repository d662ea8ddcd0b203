"""Database URLs as the configuration has them, and the drivers behind them."""

import sqlite3
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from edgeproxy.errors import StorageError

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}
"""`postgres` is how OpenSIPS spells it in `dr_partitions`."""
CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
PATIENCE_SECONDS = 60.0
"""Longest wait for one answer, or one piece of a long one, of a database that went silent in the middle."""
_EXTRAS = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql"}


def driver_url(url: str) -> URL:
    """Return the URL with its driver; raise `StorageError` for what is none of ours."""
    scheme, _, rest = url.partition(":")
    if scheme not in _DRIVERS:
        raise StorageError(f"database: expected a sqlite:///, postgresql:// or mysql:// URL, got: {scheme}:")
    form = "///FILE" if scheme == "sqlite" else "//USER:PASSWORD@HOST/DATABASE"
    try:
        place = make_url(f"{_DRIVERS[scheme]}:{rest}")
    except ArgumentError:
        raise StorageError(f"database: expected {scheme}:{form}") from None
    if scheme == "sqlite" and place.host:
        # Two slashes name a machine, which no file has.
        raise StorageError(f"database: expected {scheme}:{form}, got: {url}")
    return place


def shown(url: str) -> str:
    """Return the URL without its password."""
    return driver_url(url).render_as_string(hide_password=True).replace("+aiosqlite", "").replace("+asyncpg", "").replace("+asyncmy", "")


def _bounds(place: URL) -> dict[str, float]:
    """Return what bounds connections and answers, but for what the URL says itself."""
    if place.drivername.startswith("sqlite"):
        return {}
    names = ("connect_timeout", "read_timeout") if place.drivername.startswith("mysql") else ("timeout", "command_timeout")
    return {name: seconds for name, seconds in zip(names, (CONNECT_SECONDS, PATIENCE_SECONDS), strict=True) if name not in place.query}


def open_engine(url: str, *, create: bool = False, patient: bool = False) -> AsyncEngine:
    """Return an engine for `url`; raise `StorageError` where its driver is not there, or a file cannot be opened.

    A SQLite file that is not there is made with `create` only: one that was moved away must not be taken for an empty one.
    Statements end after `PATIENCE_SECONDS` but with `patient`, for those that change whole tables.
    """
    scheme = url.partition(":")[0]
    place = driver_url(url)
    if scheme == "sqlite":
        if not create and place.database and not Path(place.database).exists():
            raise StorageError(f"database {place.database}: no such file\nhint: edgeproxy db init URL makes one")
        try:
            # aiosqlite leaves a thread behind where it cannot open a file, which then finds the loop closed.
            sqlite3.connect(place.database or ":memory:").close()
        except sqlite3.Error as error:
            raise StorageError(f"database {place.database}: {error}") from error
    try:
        return create_async_engine(place, pool_pre_ping=scheme != "sqlite", connect_args={} if patient else _bounds(place))
    except ImportError as error:
        extra = _EXTRAS.get(scheme, scheme)
        raise StorageError(f"database: the driver for {scheme} is not installed: pip install 'edgeproxy[{extra}]'") from error

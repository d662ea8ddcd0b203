"""Whose database it is, and whether it has what is read: ours is made and migrated, an OpenSIPS one is left as it is."""

import asyncio
import enum
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, column, inspect, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.errors import StorageError
from edgeproxy.storage.schema import metadata
from edgeproxy.storage.url import driver_url, open_engine, shown

_Answer = TypeVar("_Answer")
ANSWER_SECONDS = 10.0
"""Longest time until a database has said what it is: one that hangs is one that is gone."""
_NO_ANSWER = f"no answer within {ANSWER_SECONDS:.0f} s"
VERSION_TABLE = "edgeproxy_version"
"""Where the migrations that were made are noted."""


class Standing(enum.Enum):
    """What a database is to us."""

    EMPTY = "empty"
    OURS = "ours"
    OLD = "ours, to be upgraded"
    NEWER = "of a newer edgeproxy"
    OPENSIPS = "OpenSIPS's, read as it is"
    FOREIGN = "not made by edgeproxy"


def revisions() -> list[str]:
    """Return the migrations that there are, in order, as their files are named: alembic would be 12 MB and half a second for it."""
    return sorted(file.stem[1:].split("_")[0] for file in (Path(__file__).parent / "migrations" / "versions").glob("m*.py"))


def standing(connection: Connection) -> Standing:
    """Tell what the database behind `connection` is."""
    names = set(inspect(connection).get_table_names())
    if VERSION_TABLE in names:
        made = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
        known = revisions()
        if made == known[-1]:
            return Standing.OURS
        return Standing.OLD if made is None or made in known else Standing.NEWER
    if "version" in names:
        return Standing.OPENSIPS
    if not names:
        return Standing.EMPTY
    return Standing.FOREIGN


_OPTIONAL = {
    "dr_partitions",
    "qr_profiles",
    "dr_groups",
    "dialplan",
    "dispatcher",
    "load_balancer",
    "address",
    "subscriber",
    "location",
    "domain",
    "usr_preferences",
    "uri",
    "dbaliases",
    "edgeproxy_limits",
    "fraud_detection",
}


def _needed(there: set[str]) -> list[str]:
    return sorted(set(metadata.tables) - there - _OPTIONAL)


def missing_tables(connection: Connection) -> list[str]:
    """Return the tables that are read and not there; views will do as well."""
    inspector = inspect(connection)
    return _needed({*inspector.get_table_names(), *inspector.get_view_names()})


async def require(engine: AsyncEngine, table: str) -> tuple[Standing, frozenset[str]]:
    """Return what the database of `engine` is and the columns of a table; raise `StorageError` where that is not there."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), engine.connect() as connection:
            found = await connection.run_sync(standing)
            columns = await connection.run_sync(lambda own: _columns(own, table))
    except TimeoutError:
        raise told(engine, TimeoutError(_NO_ANSWER)) from None
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    if not columns:
        raise StorageError(f"database {engine.url.render_as_string(hide_password=True)}: no table {table}\n{_hint(found)}")
    return found, columns


def _columns(connection: Connection, table: str) -> frozenset[str]:
    inspector = inspect(connection)
    if table not in {*inspector.get_table_names(), *inspector.get_view_names()}:
        return frozenset()
    return frozenset(str(own["name"]) for own in inspector.get_columns(table))


def _upgrade(connection: Connection) -> Standing:
    before = standing(connection)
    if before is Standing.OPENSIPS:
        raise StorageError("the database is OpenSIPS's (it has a table `version`): nothing is created or changed in it")
    if before is Standing.NEWER:
        raise StorageError("the database is of a newer edgeproxy: nothing is changed in it")
    if before is Standing.FOREIGN:
        raise StorageError("the database has tables of something else: expected an empty one, one of edgeproxy, or one of OpenSIPS")
    from edgeproxy.storage.migrate import migrate  # noqa: PLC0415 - few processes make tables

    migrate(connection)
    # What somebody dropped since comes back; nothing brings back what stood in it.
    metadata.create_all(connection)
    if lacking := _lacking(connection):
        raise StorageError(f"an upgrade does not bring back {', '.join(lacking)}: restore a backup, or import into an empty database")
    return before


async def upgrade(url: str) -> Standing:
    """Make or migrate the tables of `url` and return what it was before; raise `StorageError` where it is not ours."""
    engine = open_engine(url, create=True, patient=True)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_upgrade)
    except (SQLAlchemyError, OSError) as error:
        raise _told(url, error) from error
    finally:
        await engine.dispose()


async def made_at_start(url: str) -> bool:
    """Whether it is a file that the start makes, or migrates, before anything is read of it."""
    if not url.startswith("sqlite:"):
        return False
    return not Path(url.removeprefix("sqlite:///")).exists() or (await check_database(url))[0] in {Standing.EMPTY, Standing.OLD}


async def check_database(url: str) -> tuple[Standing, list[str]]:
    """Return what the database is and which tables it lacks; raise `StorageError` where it cannot be read. A file that is not there is empty."""
    file = driver_url(url).database or ""
    if url.startswith("sqlite:") and not Path(file).exists():
        return Standing.EMPTY, _needed(set())
    return await _asked(url, lambda connection: (standing(connection), missing_tables(connection)))


async def lacking(url: str) -> list[str]:
    """Return what somebody took from a database of ours: `table NAME`, `column TABLE.NAME`; raise `StorageError` where it cannot be read."""
    return await _asked(url, lambda connection: _lacking(connection) if standing(connection) is Standing.OURS else [])


async def _asked(url: str, question: Callable[[Connection], _Answer]) -> _Answer:
    engine = open_engine(url)
    try:
        async with asyncio.timeout(ANSWER_SECONDS), engine.connect() as connection:
            return await connection.run_sync(question)
    except TimeoutError:
        raise _told(url, TimeoutError(_NO_ANSWER)) from None
    except (SQLAlchemyError, OSError) as error:
        raise _told(url, error) from error
    finally:
        await engine.dispose()


def _lacking(connection: Connection) -> list[str]:
    """Return tables and columns of ours that are not there, whether or not this configuration reads them."""
    inspector = inspect(connection)
    there = {*inspector.get_table_names(), *inspector.get_view_names()}
    wanted = sorted(metadata.tables.items())
    tables = [f"table {name}" for name, _ in wanted if name not in there]
    columns = {name: {own["name"] for own in inspector.get_columns(name)} for name in metadata.tables if name in there}
    return tables + [
        f"column {name}.{own.name}" for name, made in wanted if name in there for own in made.columns if own.name not in columns[name]
    ]


_ready: set[str] = set()
"""Databases that this process found or made ready. One of them that is gone or empty later is a failure: whoever reads it anew
must not find a fresh one, which has no rules and no users."""


async def prepare(url: str) -> None:
    """See to it that the database can be read; raise `StorageError` where something lacks.

    A SQLite file is made and migrated the first time that this process asks for it.
    """
    makes = url.startswith("sqlite:") and url not in _ready
    if makes:
        path = Path(url.removeprefix("sqlite:///"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"database {path}: {error}") from error
    found, missing = await check_database(url)
    if makes and found in {Standing.EMPTY, Standing.OLD}:
        await upgrade(url)
        missing = []
    if not missing:
        _ready.add(url)
    else:
        raise StorageError(f"database {shown(url)}: no table {', '.join(missing)}\n{_hint(found)}")


def _hint(found: Standing) -> str:
    match found:
        case Standing.OPENSIPS:
            return "hint: it is OpenSIPS's, whose own tools make its tables"
        case Standing.EMPTY:
            return "hint: edgeproxy db init URL makes what is missing"
        case _:
            return "hint: edgeproxy db upgrade URL makes what is missing"


def _told(url: str, error: Exception) -> StorageError:
    # Behind the first line stand statement and values.
    return StorageError(f"database {shown(url)}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    # MariaDB's driver says in its own words that it waited for too long.
    if "read timeout" in text or (isinstance(error, TimeoutError) and not text):
        return "no answer in time"
    return text or type(error).__name__


def told(engine: AsyncEngine, error: Exception) -> StorageError:
    """Return what an operator is told of a failure of the database."""
    # As the file has it, without the driver.
    url = engine.url.set(drivername=engine.url.get_backend_name()).render_as_string(hide_password=True)
    return StorageError(f"database {url}: {_first_line(error)}")

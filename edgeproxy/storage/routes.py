"""Reads rules and gateways in blocks: the database itself joins thousands of rows into one text, so that a million of them
cross in some hundred pieces and no row becomes an object of Python."""

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    String,
    TableClause,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    inspect,
    literal,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from edgeproxy.errors import StorageError
from edgeproxy.storage.url import driver_url

ROWS = 20_000
"""Rows of one block."""
_MOST_KEY = (1 << 63) - 1
_BETWEEN, _END = "\x1f", "\x1e"
"""What the native side parts columns and rows by."""


class _Kind(NamedTuple):
    key: str
    columns: dict[str, str]
    """In the order that the native side takes them, with what stands for one that the table lacks."""
    rare: frozenset[str] = frozenset()
    """Columns that most rows leave at NULL: such rows are printed without them, in less time."""
    by_column: bool = False
    """Whether they are taken as columns too: there may be millions of rows. What a table lacks is nothing then."""
    needed: tuple[str, ...] = ()
    """Columns without which rows would mean something else: no schema lacks them."""


_KINDS = {
    "gateways": _Kind(
        "id",
        {
            "gwid": "",
            "type": "0",
            "address": "",
            "strip": "0",
            "pri_prefix": "",
            "attrs": "",
            "probe_mode": "0",
            "state": "0",
            "socket": "",
            "max_calls": "0",
            "calls_per_second": "0",
        },
        needed=("gwid", "address"),
    ),
    "carriers": _Kind(
        "id",
        {
            "carrierid": "",
            "gwlist": "",
            "flags": "0",
            "sort_alg": "N",
            "state": "0",
            "attrs": "",
            "max_calls": "0",
            "calls_per_second": "0",
        },
        needed=("carrierid", "gwlist"),
    ),
    "profiles": _Kind(
        "id",
        {"id": ""}
        | {
            f"{level}_{what}_{figure}": "-1" if what == "threshold" else penalty
            for figure in ("asr", "ccr", "pdd", "ast", "acd")
            for what in ("threshold", "penalty")
            for level, penalty in (("warn", "0.5"), ("crit", "0.05"))
        },
    ),
    "groups": _Kind("id", {"username": "", "domain": "", "groupid": "0"}, needed=("username", "groupid")),
    "dialplan": _Kind(
        "id",
        {
            "id": "",
            "dpid": "",
            "pr": "0",
            "match_op": "",
            "match_exp": "",
            "match_flags": "0",
            "subst_exp": "",
            "repl_exp": "",
            "timerec": "",
            "disabled": "0",
        },
    ),
    "rules": _Kind(
        "ruleid",
        {
            "ruleid": "",
            "groupid": "0",
            "prefix": "",
            "timerec": "",
            "priority": "0",
            "routeid": "",
            "gwlist": "",
            "sort_alg": "N",
            "sort_profile": "",
            "attrs": "",
        },
        frozenset({"timerec", "routeid", "sort_profile", "attrs"}),
        by_column=True,
        needed=("groupid", "prefix", "gwlist"),
    ),
}


class Source(NamedTuple):
    """Where the rows of a partition are."""

    partition: str
    url: str
    tables: dict[str, str]
    """`gateways`, `carriers`, `profiles`, `groups`, `dialplan` and `rules` with the tables' names."""


DEFAULT_TABLES = {
    "gateways": "dr_gateways",
    "carriers": "dr_carriers",
    "profiles": "qr_profiles",
    "groups": "dr_groups",
    "dialplan": "dialplan",
    "rules": "dr_rules",
}
OPTIONAL_TABLES = frozenset({"groups", "dialplan"})
"""Kinds that are read where the configuration needs them."""
_OPTIONAL = {"profiles", *OPTIONAL_TABLES}
"""Tables that an OpenSIPS database without their module lacks."""


class RowBlock(NamedTuple):
    """Rows of one kind."""

    kind: str
    rows: bytes


class ColumnBlock(msgspec.Struct):
    """Rules as columns, each with one value of each row."""

    kind: str
    columns: list[bytes]
    refused: bool = False
    """Set by who takes it, where the columns do not fit each other: the same comes once more as rows."""


class Keyless(NamedTuple):
    """Rows of a table that have no key, so that nothing can name them: a table without a primary key, or a view, may have such."""

    table: str
    key: str
    rows: int


def block(kind: str, rows: Iterable[Mapping[str, object]]) -> bytes:
    """Return rows as the database would give them, with defaults for columns that are left out."""
    columns = _KINDS[kind].columns
    lines = (_BETWEEN.join(str(row.get(name, default)) for name, default in columns.items()) for row in rows)
    return "".join(line + _END for line in lines).encode()


async def read_partitions(engine: AsyncEngine, url: str) -> tuple[list[Source], list[tuple[str, str, str, str]]]:
    """Return the partitions of `dr_partitions`, and the faults of rows that mean nothing: table, row, column, problem."""
    wanted = table(
        "dr_partitions", *(column(name) for name in ("id", "partition_name", "db_url", "drd_table", "drr_table", "drc_table", "drg_table"))
    )
    found: list[Source] = []
    faults: list[tuple[str, str, str, str]] = []
    async with engine.connect() as connection:
        for row in (await connection.execute(select(wanted))).mappings():
            name = str(row["partition_name"])
            other = str(row["db_url"] or "") or url
            named = {"gateways": row["drd_table"], "carriers": row["drc_table"], "rules": row["drr_table"], "groups": row["drg_table"]}
            tables = DEFAULT_TABLES | {kind: str(value) for kind, value in named.items() if value}
            # Numbers have one form over all partitions.
            tables.pop("dialplan")
            fault = partial(_partition_fault, str(row["id"]))
            if not row["partition_name"] or any(source.partition == name for source in found):
                faults.append(fault("partition_name", f"expected names, each once, got: {row['partition_name'] or 'none'}"))
                continue
            try:
                driver_url(other)
            except StorageError as error:
                faults.append(fault("db_url", str(error)))
                continue
            found.append(Source(name, other, tables))
    return found, faults


def _partition_fault(row: str, column_name: str, problem: str) -> tuple[str, str, str, str]:
    return "dr_partitions", row, column_name, problem


async def read_rows(engine: AsyncEngine, source: Source) -> AsyncIterator[RowBlock | ColumnBlock | Keyless]:
    """Give the rows of a partition, all as they were at one moment: gateways, then carriers, then profiles, groups of callers and dial plans, then rules."""
    dialect = engine.dialect.name
    options = {} if dialect == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    async with engine.connect() as plain:
        connection = await plain.execution_options(**options)
        if dialect == "sqlite":
            # The driver begins no transaction for what only reads.
            await connection.exec_driver_sql("BEGIN")
        elif dialect == "mysql":
            await connection.execute(text("SET SESSION group_concat_max_len = 1073741824"))
        for kind, shape in _KINDS.items():
            if kind not in source.tables:
                continue
            name, optional = source.tables[kind], kind in _OPTIONAL
            there = await connection.run_sync(partial(_columns, name=name, optional=optional))
            if there is None:
                continue
            if missing := [own for own in (shape.key, *shape.needed) if own not in there]:
                raise StorageError(f"table {name}: no column {missing[0]}")
            if shape.by_column and dialect == "sqlite" and await connection.run_sync(_is_keyed_table, name, shape.key):
                async for block in _by_column(connection, kind, name, shape, there):
                    yield block
                continue
            async for rows in _blocks(connection, dialect, name, shape, there):
                yield rows if isinstance(rows, Keyless) else RowBlock(kind, rows)


def _columns(connection: Connection, name: str, *, optional: bool) -> set[str] | None:
    """Return the names of a table's columns; None for one that is not there and need not be."""
    inspector = inspect(connection)
    if optional and not inspector.has_table(name):
        return None
    return {found["name"] for found in inspector.get_columns(name)}


def _is_keyed_table(connection: Connection, name: str, key: str) -> bool:
    """Whether SQLite keeps rows by this key, so that it reads them in its order without being told to."""
    inspector = inspect(connection)
    if name not in inspector.get_table_names():
        return False
    is_integer = any(column["name"] == key and isinstance(column["type"], Integer) for column in inspector.get_columns(name))
    return is_integer and inspector.get_pk_constraint(name)["constrained_columns"] == [key]


async def _by_column(
    connection: AsyncConnection, kind: str, name: str, shape: _Kind, there: set[str]
) -> AsyncIterator[RowBlock | ColumnBlock]:
    """Give rules of SQLite column by column, which takes it half the time of printing rows."""
    source = table(name, *(column(own) for own in there))
    key = source.c[shape.key]
    within = and_(key >= bindparam("first"), key <= bindparam("last"))
    # Each made once: to make and compile one takes as long as reading a thousand rows.
    end = select(key).where(key >= bindparam("first")).order_by(key).offset(ROWS - 1).limit(1)
    columns = {with_nothing: _all_values(source, shape, there, with_nothing=with_nothing).where(within) for with_nothing in (False, True)}
    ordered = select(_printed(source, shape, there).label("line")).where(within).order_by(key).subquery()
    printed = select(cast(func.group_concat(ordered.c.line, _written("")), LargeBinary))
    first, with_nothing = -_MOST_KEY - 1, False
    while first <= _MOST_KEY:
        last = (await connection.execute(end, {"first": first})).scalar_one_or_none()
        bounds = {"first": first, "last": _MOST_KEY if last is None else last}
        row = (await connection.execute(columns[with_nothing], bounds)).one()
        if row[0] is not None:
            block = ColumnBlock(kind, [value or b"" for value in row])
            yield block
            if block.refused:
                # Some rows have nothing where others have something, or a value holds what parts them.
                with_nothing = True
                yield RowBlock(kind, (await connection.execute(printed, bounds)).scalar_one())
        if last is None:
            return
        first = last + 1


def _all_values(source: TableClause, shape: _Kind, there: set[str], *, with_nothing: bool) -> Select[Any]:
    values = (_values(source.c[own], with_nothing=with_nothing) if own in there else literal(None) for own in shape.columns)
    return select(*values).select_from(source)


def _values(of: ColumnElement[Any], *, with_nothing: bool) -> Any:
    """Return a column's values as one text; with `with_nothing` those too that are nothing."""
    return cast(func.group_concat(func.coalesce(of, _written("")) if with_nothing else of, _written(_BETWEEN)), LargeBinary)


def _written(text: str) -> ColumnElement[str]:
    """Return a text of ours as it stands in the statement: as a parameter SQLite would copy it for every row, in as much time as all the rest."""
    return literal_column(f"'{text}'")


async def _blocks(connection: AsyncConnection, dialect: str, name: str, shape: _Kind, there: set[str]) -> AsyncIterator[bytes | Keyless]:
    left = (await connection.execute(select(func.count()).select_from(table(name)))).scalar_one()
    last, size = None, ROWS
    while left > 0:
        row = (await connection.execute(_statement(dialect, name, shape, there, first=last is None), {"last": last, "size": size})).one()
        if row[0] is None:
            source = table(name, column(shape.key))
            without = select(func.count()).select_from(source).where(source.c[shape.key].is_(None))
            if (keyless := (await connection.execute(without)).scalar_one()) != left:
                # A view may have what a table with a primary key has not.
                raise StorageError(f"table {name}: {left} rows have no {shape.key}, or one that others have too")
            yield Keyless(name, shape.key, keyless)
            return
        block = row[2] if isinstance(row[2], bytes) else str(row[2]).encode()
        if dialect == "mysql" and len(block) < row[3]:
            # It cuts what is longer than its `max_allowed_packet`, and only warns.
            if size == 1:
                raise StorageError(f"table {name}: the row after {shape.key} {last} is longer than max_allowed_packet of the server")
            size = max(1, size // 4)
            continue
        last = row[0]
        left -= row[1]
        yield block


def _statement(dialect: str, name: str, shape: _Kind, there: set[str], *, first: bool) -> Any:
    source = table(name, *(column(own) for own in there))
    key = source.c[shape.key]
    line = _printed(source, shape, there) if dialect == "sqlite" else _joined(source, shape, there)
    behind = key.is_not(None) if first else key > bindparam("last")
    page = select(key.label("key"), line.label("line")).where(behind).order_by(key).limit(bindparam("size", type_=Integer())).subquery()
    if dialect == "sqlite":
        block: Any = cast(func.group_concat(page.c.line, _written("")), LargeBinary)
    elif dialect == "mysql":
        block = func.group_concat(page.c.line.op("SEPARATOR")(text("''")))
    else:
        block = func.string_agg(page.c.line, "")
    length = [func.sum(func.octet_length(page.c.line))] if dialect == "mysql" else []
    return select(func.max(page.c.key), func.count(), block, *length)


def _printed(source: TableClause, shape: _Kind, there: set[str]) -> Any:
    """Return the line of a row as SQLite's `printf` makes it, in half the time that joining its columns takes."""
    rare = sorted(shape.rare & there)
    line = _print(source, shape, there)
    if not rare:
        return line
    plain = and_(*(source.c[own].is_(None) for own in rare))
    return case((plain, _print(source, shape, there, without=shape.rare)), else_=line)


def _print(source: TableClause, shape: _Kind, there: set[str], without: frozenset[str] = frozenset()) -> Any:
    default = {own: "" if own in without else default for own, default in shape.columns.items()}
    named = [own for own in shape.columns if own in there - without]
    parts = ["%s" if own in named else default[own] for own in shape.columns]
    return func.printf(_written(_BETWEEN.join(parts) + _END), *(source.c[own] for own in named))


def _joined(source: TableClause, shape: _Kind, there: set[str]) -> Any:
    line: Any = literal("")
    for number, (own, default) in enumerate(shape.columns.items()):
        value = func.coalesce(cast(source.c[own], String()), "") if own in there else literal(default)
        line = line.concat(literal(_BETWEEN)).concat(value) if number else value
    return line.concat(literal(_END))

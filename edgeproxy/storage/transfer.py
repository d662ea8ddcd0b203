"""Rows of rules, gateways and carriers as CSV, in and out. What cannot be used is named with its line, and nothing is half done."""

import csv
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Float, Integer, Table, UniqueConstraint, delete, func, insert, inspect, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from edgeproxy.errors import StorageError
from edgeproxy.storage.database import Standing, standing, told
from edgeproxy.storage.schema import address, carriers, dialplan, dispatcher, gateways, groups, load_balancer, profiles, rules
from edgeproxy.storage.url import open_engine

KINDS: dict[str, Table] = {
    "gateways": gateways,
    "carriers": carriers,
    "profiles": profiles,
    "groups": groups,
    "dialplan": dialplan,
    "dispatcher": dispatcher,
    "load_balancer": load_balancer,
    "address": address,
    "rules": rules,
}
_ROWS = 5_000
_FILE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to a file ends with, and asking a database does not."""
_MOST = 2**31 - 1
"""What an integer column of every database takes."""
_TOLD = 1_000
"""Faults that are told one by one; more are counted."""


class Imported(NamedTuple):
    """What came of an import."""

    taken: int
    fault_count: int
    faults: list[str]


Judge = Callable[[str, Mapping[str, Any]], Sequence[tuple[str, str]]]
"""Tells what a load would say of a row of a kind: columns and problems."""


class _Reader:
    """Reads rows, and keeps what is wrong with some of them."""

    def __init__(self, file: Path, kind: str, judge: Judge) -> None:
        self._file = file
        self._judge = judge
        self._kind = kind
        self._table = KINDS[kind]
        self.fault_count = 0
        self.faults: list[str] = []
        unique = [constraint.columns.keys() for constraint in self._table.constraints if isinstance(constraint, UniqueConstraint)]
        keys = (tuple(names) for names in (self._table.primary_key.columns.keys(), *unique))
        self._seen: dict[tuple[str, ...], dict[tuple[Any, ...], int]] = {names: {} for names in keys}
        """By the columns that tell rows apart: values, and the line that has them; 0 for those that were in the database before."""

    def know(self, connection: Connection) -> None:
        """Learn which rows are there already: a second one of a name would be refused by the database, and all others with it."""
        for names in self._seen:
            key = [self._table.columns[name] for name in names]
            self._seen[names].update(dict.fromkeys(map(tuple, connection.execute(select(*key))), 0))

    def fault(self, line: int, column: str, problem: str) -> None:
        self.fault_count += 1
        if len(self.faults) < _TOLD:
            self.faults.append(f"{self._file}:{line}: {column}: {problem}")

    def rows(self, step: Callable[[int], None]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give the rows that can be used, each with its line."""
        with self._file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            last = 1
            try:
                names = reader.fieldnames or []
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(1, error) from error
            known = set(self._table.columns.keys())
            if unknown := [name for name in names if name not in known]:
                raise StorageError(
                    f"{self._file}:1: no such column: {', '.join(unknown)}; {self._table.name} has {', '.join(sorted(known))}"
                )
            if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
                raise StorageError(f"{self._file}:1: expected each column once, got twice: {', '.join(repeated)}")
            needed = [
                column.name
                for column in self._table.columns
                if not column.nullable and not column.server_default and (not column.primary_key or self._kind == "profiles")
            ]
            if missing := [name for name in needed if name not in names]:
                raise StorageError(f"{self._file}:1: missing column: {', '.join(missing)}")
            try:
                for row in reader:
                    step(1)
                    # Its own count does not go on over empty lines.
                    last = reader.reader.line_num
                    if (taken := self._row(last, row)) is not None:
                        yield last, taken
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(last + 1, error) from error

    def _unreadable(self, line: int, error: Exception) -> StorageError:
        """Return the error of a row that begins in `line`, or of text that is no UTF-8: that is read far ahead of rows."""
        if isinstance(error, UnicodeDecodeError):
            with self._file.open("rb") as lines:
                for number, text in enumerate(lines, 1):
                    try:
                        text.decode()
                    except UnicodeDecodeError as found:
                        return StorageError(
                            f"{self._file}:{number}: expected UTF-8, got byte {text[found.start]:#04x} at place {found.start + 1}"
                        )
        with self._file.open("rb") as lines:
            # Empty lines are no rows.
            line = next((number for number, text in enumerate(lines, 1) if number >= line and text.strip(b"\r\n")), line)
        opened = "a quote is opened and not closed" if str(error) == "unexpected end of data" else str(error)
        return StorageError(f"{self._file}:{line}: {opened}")

    def _row(self, line: int, row: dict[str, Any]) -> dict[str, Any] | None:
        if None in row or None in row.values():
            self.fault(line, "row", f"expected {len(row) - (None in row)} columns, as many as the first line names")
            return None
        found: dict[str, Any] = {}
        for name, text in row.items():
            column = self._table.columns[name]
            if text == "":
                if column.server_default is None and not column.nullable and not column.primary_key and name != "prefix":
                    self.fault(line, name, "expected a value")
                    return None
                # A default of the database stands for what is left out, but all rows of one statement have the same columns.
                found[name] = "" if name == "prefix" else None if column.server_default is None else _default(column)
            elif isinstance(column.type, Integer | Float):
                try:
                    found[name] = int(text) if isinstance(column.type, Integer) else float(text)
                except ValueError:
                    self.fault(line, name, f"expected a number, got: {text[:80]}")
                    return None
                if isinstance(column.type, Integer) and not -_MOST - 1 <= found[name] <= _MOST:
                    self.fault(line, name, f"expected a number from {-_MOST - 1} to {_MOST}, got: {text[:80]}")
                    return None
            else:
                length = getattr(column.type, "length", None) or 0
                if len(text) > length or not text.isprintable():
                    self.fault(line, name, f"expected {length} printable characters at most, got: {text[:80]}")
                    return None
                found[name] = text
        for name, problem in (faults := self._judge(self._kind, found)):
            self.fault(line, name, problem)
        return None if faults or self._is_repeated(line, found) else found

    def _is_repeated(self, line: int, row: dict[str, Any]) -> bool:
        for names, seen in self._seen.items():
            key = tuple(row.get(name) for name in names)
            if None in key:
                # Without a number the database gives one.
                continue
            if (before := seen.setdefault(key, line)) != line:
                self.fault(
                    line,
                    names[0],
                    f"a second row of {' '.join(map(str, key))}, {f'the first is in line {before}' if before else 'the first is in the database'}",
                )
                return True
        return False


def _default(column: Any) -> Any:
    text = str(column.server_default.arg)
    if isinstance(column.type, Integer):
        return int(text)
    return float(text) if isinstance(column.type, Float) else text


async def import_rows(  # noqa: PLR0913
    url: str, kind: str, file: Path, *, replace: bool, skip_bad: bool, foreign: bool, step: Callable[[int], None], judge: Judge
) -> Imported:
    """Take the rows of `file` in one transaction; with bad rows, those that `judge` finds too, nothing is taken, unless `skip_bad`.

    Raise `StorageError` where the file has no usable columns, or the database refuses.
    """
    table, reader = KINDS[kind], _Reader(file, kind, judge)
    engine = open_engine(url, patient=True)

    def work(connection: Connection) -> int:
        found = standing(connection)
        if found is Standing.OPENSIPS and not foreign:
            raise StorageError("the database is OpenSIPS's: nothing is written there without --into-opensips")
        if found not in {Standing.OURS, Standing.OPENSIPS}:
            raise StorageError(f"the database is {found.value}\nhint: edgeproxy db upgrade URL")
        if replace:
            connection.execute(delete(table))
        else:
            reader.know(connection)
        count = 0
        left = reader.rows(step)
        while rows := list(islice(left, _ROWS)):
            count += _take(connection, table, rows, reader)
        if connection.dialect.name == "postgresql":
            _go_on_behind(connection, table)
        if reader.fault_count and not skip_bad:
            connection.rollback()
            return 0
        return count

    try:
        async with engine.connect() as connection:
            count = await connection.run_sync(work)
            await connection.commit()
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    finally:
        await engine.dispose()
    return Imported(count, reader.fault_count, reader.faults)


def _take(connection: Connection, table: Table, rows: list[tuple[int, dict[str, Any]]], reader: _Reader) -> int:
    """Write rows with the lines that have them, and return how many the database took; those that it refuses are faults."""
    if connection.dialect.name == "sqlite":
        # It takes as equal what is equal, and its driver would commit at the end of a savepoint.
        connection.execute(insert(table), [row for _, row in rows])
        return len(rows)
    try:
        with connection.begin_nested():
            connection.execute(insert(table), [row for _, row in rows])
    except (IntegrityError, DataError):
        # One of them: a collation may take names as equal that are not, and each column has rules of its own.
        return sum(_take_one(connection, table, line, row, reader) for line, row in rows)
    return len(rows)


def _take_one(connection: Connection, table: Table, line: int, row: dict[str, Any], reader: _Reader) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(insert(table), row)
    except (IntegrityError, DataError) as error:
        reader.fault(line, "row", f"the database refuses it: {str(error.orig).splitlines()[0]}")
        return False
    return True


def _go_on_behind(connection: Connection, table: Table) -> None:
    """Let keys that PostgreSQL makes come behind those that were brought: it looks at its own count only."""
    key = next(iter(table.primary_key.columns))
    sequence = func.pg_get_serial_sequence(table.name, key.name)
    # Never back: other sessions may have taken keys that they have not committed.
    connection.execute(select(func.setval(sequence, func.greatest(func.max(key), func.nextval(sequence)))))


async def export_rows(url: str, kind: str, file: Path, *, step: Callable[[int], None]) -> int:
    """Write all rows to `file`; raise `StorageError` where that fails: then there is no file, or the one from before."""
    table = KINDS[kind]
    key = next(iter(table.primary_key.columns))
    engine = open_engine(url, patient=True)
    staged = file.with_name(f"{file.name}.part")
    count = 0
    try:
        with staged.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            async with engine.connect() as connection:
                there = {own["name"] for own in await connection.run_sync(lambda plain: inspect(plain).get_columns(table.name))}
                # Other schemas lack some of ours.
                columns = [own for own in table.columns if own.name in there]
                writer.writerow([own.name for own in columns])
                async with connection.stream(select(*columns).order_by(key)) as rows:
                    async for part in rows.partitions(_ROWS):
                        writer.writerows(part)
                        count += len(part)
                        step(len(part))
        staged.replace(file)
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) and (error.filename or error.errno in _FILE_ERRORS):
            raise StorageError(f"{file}: {error.strerror}") from error
        raise told(engine, error) from error
    finally:
        staged.unlink(missing_ok=True)
        await engine.dispose()
    return count

"""From the database to tables that are ready to serve."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.config.address import ListenAddress
from edgeproxy.config.database import database_url
from edgeproxy.errors import StorageError
from edgeproxy.server.route_report import Fault, PartitionSize, RouteReport
from edgeproxy.storage import (
    DEFAULT_TABLES,
    OPTIONAL_TABLES,
    ColumnBlock,
    Keyless,
    Source,
    made_at_start,
    open_engine,
    prepare,
    read_partitions,
    read_rows,
    told,
)
from edgeproxy.storage.recurrence import expand


async def read_tables(
    loaded: Loaded, before: "_native.RouteTables | None", handlers: Sequence[str] = ()
) -> tuple["_native.RouteTables", RouteReport, bool]:
    """Return the tables, what came of reading them, and whether time recurrences are among them; raise `StorageError`.

    What `before` knows of gateways goes on under their names; `handlers` are those that rules may name.
    """
    url, routing = database_url(loaded.config), loaded.config.routing
    began, processor = time.monotonic(), time.process_time()
    await prepare(url)
    needed = {kind: name for kind, name in DEFAULT_TABLES.items() if kind not in OPTIONAL_TABLES or kind in loaded.config.optional_tables}
    sources = [Source("", url, needed)]
    engine = open_engine(url)
    bad_partitions: list[tuple[str, str, str, str]] = []
    keyless: list[Keyless] = []
    try:
        if routing.partitions:
            found, bad_partitions = await read_partitions(engine, url)
            sources += [source._replace(tables={kind: name for kind, name in source.tables.items() if kind in needed}) for source in found]
        load = _native.RouteLoad([source.partition for source in sources], routing.extra_prefix_characters, list(handlers), before)
        for source in sources:
            try:
                keyless += await _read_at(engine, url, load, source)
            except StorageError as error:
                if not source.partition:
                    raise
                # One that is not to be had now is no partition without rules.
                raise StorageError(f"partition {source.partition} of dr_partitions: {error}") from error
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    finally:
        await engine.dispose()
    timed = [await asyncio.to_thread(_give_meaning, load, source.partition) for source in sources]
    tables, faults, count = await asyncio.to_thread(load.finish)
    listeners = loaded.config.install.listener
    places = {*listeners, *(listener.address for listener in listeners.values())}
    for gateway, socket in tables.sockets():
        if socket not in places and f"{socket}:5060" not in places:
            count += 1
            faults.append(("dr_gateways", gateway, "socket", f"no such listener: {socket}; calls go by any"))
    parsed = (ListenAddress.parse(listener.address) for listener in listeners.values())
    out_of_reach = tables.out_of_reach([(address.transport, address.host.version == 4) for address in parsed])
    count += len(out_of_reach)
    faults += [("dr_gateways", gateway, "address", f"{why}; no call comes to it") for gateway, why in out_of_reach]
    told_here = [*bad_partitions, *_unknown_names(loaded, tables)]
    count += len(told_here) + sum(found.rows for found in keyless)
    faults += told_here
    faults += [(found.table, "", found.key, f"rows without it: {found.rows}; nothing can name them") for found in keyless]
    report = RouteReport(
        loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 3),
        processor_seconds=round(time.process_time() - processor, 3),
        partitions=[PartitionSize(*size) for size in tables.sizes()],
        fault_count=count,
        faults=[Fault(*parts) for parts in faults],
    )
    return tables, report, any(timed)


async def _read_at(engine: AsyncEngine, url: str, load: "_native.RouteLoad", source: Source) -> list[Keyless]:
    """Read a partition by the engine of the main database, or by one of its own where it lies elsewhere."""
    if source.url == url:
        return await read_source(engine, load, source)
    other = open_engine(source.url)
    try:
        return await read_source(other, load, source)
    finally:
        await other.dispose()


def _unknown_names(loaded: Loaded, tables: "_native.RouteTables") -> list[tuple[str, str, str, str]]:
    """Return what routes of the file name and the database does not have."""
    found = []
    partitions = {size[0] for size in tables.sizes()}
    for name, route in loaded.config.route.items():
        if route.partition not in partitions:
            found.append(("[route]", name, "partition", f"no such partition: {route.partition}; calls get its answer `not_found`"))
            continue
        found += [
            ("[route]", name, "whitelist", f"no such gateway or #carrier: {wanted}")
            for wanted in route.whitelist
            if not tables.has(route.partition, wanted)
        ]
    return found


async def check_tables(loaded: Loaded, handlers: Sequence[str]) -> None:
    """Raise `StorageError` where starting would, without making or changing anything."""
    url = database_url(loaded.config)
    if await made_at_start(url):
        return
    _, report, _ = await read_tables(loaded, None, handlers)
    refuse_faults(loaded, report)


def refuse_faults(loaded: Loaded, report: RouteReport) -> None:
    """Raise `StorageError` for rows that cannot be used, where the configuration wants none of them."""
    if report.fault_count and loaded.config.routing.bad_rows == "refuse":
        raise StorageError(f"routes: {report.fault_count} rows cannot be used, first: {report.faults[0]}")


async def read_source(engine: AsyncEngine, load: "_native.RouteLoad", source: Source) -> list[Keyless]:
    """Give a load the rows of one partition, and return what cannot be read of its tables; raise `StorageError`."""
    keyless = []
    try:
        async for block in read_rows(engine, source):
            if isinstance(block, Keyless):
                keyless.append(block)
            elif isinstance(block, ColumnBlock):
                block.refused = not await asyncio.to_thread(load.add_columns, source.partition, block.columns)
            else:
                await asyncio.to_thread(load.add, source.partition, block.kind, block.rows)
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    return keyless


def _give_meaning(load: "_native.RouteLoad", partition: str) -> bool:
    """Expand the time recurrences of a partition; return whether it has any."""
    texts = load.recurrences(partition)
    now = datetime.now(UTC)
    for text in texts:
        try:
            load.mean(partition, expand(text, now))
        except (ValueError, ArithmeticError, RecursionError) as error:
            load.mean(partition, [], str(error) or type(error).__name__)
    return bool(texts)

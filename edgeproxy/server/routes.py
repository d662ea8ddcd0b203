"""Rules and gateways of carriers: read from the database, renewed, switched."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.config.database import database_url
from edgeproxy.config.document import dns_document
from edgeproxy.errors import StorageError
from edgeproxy.server.route_explanation import Serving
from edgeproxy.server.route_report import RouteReport
from edgeproxy.server.switches import Switches

GatewayName = tuple[str, int, str]
"""Host, port (0: none) and transport (empty: none), as a gateway's URI has them."""
Resolved = list[tuple[GatewayName, list[tuple[str, int, str]]]]
"""Names with address, port and transport of where they lead (RFC 3263)."""
Log = Callable[..., None]
State = Callable[[int, str], None]
RENEW_SECONDS = 86_400.0
"""How often time recurrences are made anew: they reach 400 days ahead."""
_RETIRE_SECONDS = 5.0
"""How long replaced tables are held, so that no worker is the one that gives their memory back."""


def _names_of_routes(loaded: Loaded) -> dict[str, tuple[str, list[str]]]:
    """Return what each route of the file names of the tables."""
    return {name: (route.partition, route.whitelist) for name, route in loaded.config.route.items()}


class Routes:
    """The tables that serve, and how they came."""

    def __init__(self, log: Log, state: State, switches: Switches) -> None:
        self._log = log
        self._state = state
        self._turn = asyncio.Lock()
        self._engine: _native.Engine | None = None
        self._tables: _native.RouteTables | None = None
        self._loaded: Loaded | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._switches = switches
        self._has_recurrences = False
        self._handlers: Sequence[str] = ()
        """Those that rules may name, and those of tables that were read last."""
        self._read_handlers: Sequence[str] = ()
        self._addresses: dict[GatewayName, list[tuple[str, int, str]]] = {}
        self._nowhere: list[str] = []
        """Hosts of gateways that had no address when they were last looked up, nor before."""
        self.report = RouteReport()
        self.problem = ""
        """Why the last load failed; empty where it did not."""
        self.loads = 0
        self.failures = 0

    @property
    def are_loaded(self) -> bool:
        """Whether there are tables."""
        return self._tables is not None

    def serve_also(self, loaded: Loaded, handlers: Sequence[str]) -> bool:
        """Whether the tables that are loaded serve this configuration too."""
        before = self._loaded
        if before is None or not loaded.config.uses_routes:
            return before is None and not loaded.config.uses_routes
        return (
            handlers == self._handlers
            and loaded.config.optional_tables <= before.config.optional_tables
            and before.config.routing == loaded.config.routing
            and _names_of_routes(before) == _names_of_routes(loaded)
            and database_url(before.config) == database_url(loaded.config)
        )

    async def read(self, loaded: Loaded, handlers: Sequence[str]) -> "_native.RouteTables":
        """Read everything that `loaded` names; raise `StorageError` where that fails, or has faults that are to be refused."""
        async with self._turn:
            try:
                async with asyncio.timeout(loaded.config.routing.database_seconds):
                    tables = await self._read(loaded, handlers)
            except TimeoutError:
                self.failed(f"the database did not give everything within {loaded.config.routing.database_seconds} s")
                raise StorageError(f"routes: {self.problem}") from None
            except StorageError as error:
                self.failed(str(error))
                raise
            self.loads += 1
            self.problem = ""
            self._read_handlers = handlers
            return tables

    def failed(self, problem: str) -> None:
        """Count and tell that a load failed."""
        self.failures += 1
        self.problem = problem
        self._state(-1, "routes: not loaded")
        self._log("routes not loaded", level="error", values={"problem": problem})

    async def _read(self, loaded: Loaded, handlers: Sequence[str]) -> "_native.RouteTables":
        # A proxy without rules needs no database, and none of the memory that libraries for one take.
        from edgeproxy.server.route_load import read_tables, refuse_faults  # noqa: PLC0415

        tables, report, self._has_recurrences = await read_tables(loaded, self._tables, handlers)
        for fault in report.faults[:20]:
            self._log("a row cannot be used", level="warning", values={"fault": str(fault)})
        try:
            refuse_faults(loaded, report)
        except StorageError:
            self.report = msgspec.structs.replace(self.report, fault_count=report.fault_count, faults=report.faults)
            raise
        tables = tables.with_addresses(await self._addresses_of(loaded, tables))
        self.report = report
        return tables

    def switched(self, tables: "_native.RouteTables | None") -> "_native.RouteTables | None":
        """Switch what operators have switched; return the same tables."""
        if tables is None:
            return None
        for (partition, kind, name), on in self._switches:
            if kind != "machine":
                tables.switch(partition, kind, name, on, False)
        return tables

    def use(self, engine: "_native.Engine", loaded: Loaded, tables: "_native.RouteTables", *, serve: bool = True) -> None:
        """Go by `tables` from now on; the engine has them already where `serve` is not set."""
        self._engine, self._loaded = engine, loaded
        retired, self._tables = self._tables, tables
        self._handlers = self._read_handlers
        if serve:
            self.switched(tables)
            engine.set_routes(tables)
        asyncio.get_running_loop().call_later(_RETIRE_SECONDS, lambda: retired)
        self._state(1, "routes: loaded")
        sizes = {size.partition or "default": size.rules for size in self.report.partitions}
        self._log("routes loaded", values={"rules": sizes, "faults": self.report.fault_count, "seconds": self.report.seconds})
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._resolve())]

    def go_by(self, loaded: Loaded) -> None:
        """Explain by another configuration, whose tables are these too; one that uses none has none any more."""
        if self._tables is None or self._engine is None:
            return
        self._loaded = loaded
        if not loaded.config.uses_routes:
            self._engine.set_routes(_native.RouteLoad([]).finish()[0])
            self._tables = self._loaded = None
            self._handlers = ()
            self.report, self.problem = RouteReport(), ""

    async def stop(self) -> None:
        """End what renews the tables."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def reload(self) -> RouteReport:
        """Read everything anew; raise `StorageError` where that fails: then what served before goes on."""
        if self._engine is None or self._loaded is None:
            raise StorageError("routes: the configuration has none")
        tables = await self.read(self._loaded, self._handlers)
        self.use(self._engine, self._loaded, tables)
        return self.report

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._has_recurrences:
                try:
                    await self.reload()
                except Exception as error:
                    # The next day is another one; what failed has been told where it was the database.
                    self._log("time recurrences not renewed", level="error", values={"error": f"{type(error).__name__}: {error}"})

    async def _resolve(self) -> None:
        while True:
            await asyncio.sleep(self._loaded.config.routing.resolve_seconds if self._loaded else 300)
            tables, loaded = self._tables, self._loaded
            if tables is None or loaded is None or self._engine is None or not tables.names_to_resolve():
                continue
            found = await self._addresses_of(loaded, tables)
            async with self._turn:
                if self._tables is tables:
                    self._tables = tables.with_addresses(found)
                    self._engine.set_routes(self._tables)

    async def _addresses_of(self, loaded: Loaded, tables: "_native.RouteTables") -> Resolved:
        """Return where gateways are that have names; a name that cannot be looked up keeps what it had."""
        names = tables.names_to_resolve()
        try:
            found = await asyncio.to_thread(_native.look_up, dns_document(loaded.config), names) if names else []
        except OSError as error:
            found = []
            self._log("names of gateways cannot be looked up", level="error", values={"error": str(error)})
        before, self._addresses = self._addresses, dict(found)
        self._addresses |= {name: before[name] for name in names if name in before and not self._addresses.get(name)}
        nowhere = sorted({name[0] for name in names if not self._addresses.get(name)})
        if nowhere and nowhere != self._nowhere:
            values = {"names": nowhere[:20], "count": len(nowhere)}
            self._log("gateways whose names lead nowhere are not known as senders", level="warning", values=values)
        self._nowhere = nowhere
        return list(self._addresses.items())

    def switch(self, partition: str, kind: str, name: str, on: bool) -> None:
        """Switch a gateway or carrier for good; raise `StorageError` where there is none of this name."""
        if self._tables is None or not self._tables.switch(partition, kind, name, on, True):
            raise StorageError(f"no {kind} {name} in partition {partition or 'default'}")
        self._log("switched by an operator", values={"kind": kind, "name": name, "on": on})
        self._switches.set((partition, kind, name), on)

    def gateways(self) -> list[dict[str, Any]]:
        """Return what is known of every gateway and carrier."""
        if self._tables is None or self._engine is None:
            return []
        return [msgspec.json.decode(text) for text in self._engine.gateways(self._tables)]

    def quality(self) -> list[dict[str, Any]]:
        """Return figures and grade of every pair of rule and gateway that has had calls."""
        if self._tables is None or self._engine is None:
            return []
        found = [msgspec.json.decode(text) for text in self._engine.quality(self._tables)]
        return sorted(found, key=lambda pair: (pair["partition"], pair["rule"], pair["gateway"]))

    def set_quality(self, partition: str, rule: int, gateway: str, on: bool | None) -> None:
        """Forget what is kept of a pair, or with `on` switch it until the next start; raise `StorageError` where it had no calls."""
        if self._tables is None or not self._tables.quality_of(partition, rule, gateway, on):
            raise StorageError(f"gateway {gateway} has had no calls by rule {rule} of partition {partition or 'default'}")

    def serving(self) -> Serving:
        """Return what explains a number; raise `StorageError` where the configuration has no routes."""
        if self._tables is None or self._engine is None or self._loaded is None:
            raise StorageError("routes: the configuration has none")
        return Serving(self._engine, self._tables, self._loaded, self._has_recurrences)

    def status(self) -> dict[str, Any]:
        """Return how the tables do."""
        state = "stale" if self.problem else "none" if self._tables is None else "ready"
        return {"state": state, "problem": self.problem, **msgspec.to_builtins(self.report)}

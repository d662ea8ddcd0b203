"""What an operator can do to a running proxy: reload, roll back, look, drain."""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy import __version__, _native
from edgeproxy.config import Config, Loaded, load, load_text, to_document
from edgeproxy.config.changes import changes, needs_restart
from edgeproxy.config.placed import placed
from edgeproxy.config.positions import Positions
from edgeproxy.errors import ConfigError, EdgeProxyError, StorageError
from edgeproxy.server.announcer import Announcer
from edgeproxy.server.check import check_addresses, check_policies
from edgeproxy.server.fraud_store import FraudStore
from edgeproxy.server.kernel_bans import KernelGuard
from edgeproxy.server.limits import Limits
from edgeproxy.server.logs import LogPrinter
from edgeproxy.server.niceness import serve_behind_workers, step_back
from edgeproxy.server.policies import WORK, Policies, route_handlers
from edgeproxy.server.revisions import Revisions
from edgeproxy.server.route_report import RouteReport
from edgeproxy.server.routes import Routes
from edgeproxy.server.shared_attacks import SharedAttacks
from edgeproxy.server.shared_fraud import SharedFraud
from edgeproxy.server.shares import Shares, connected
from edgeproxy.server.sinks import Sinks
from edgeproxy.server.standing import Standing
from edgeproxy.server.switches import Switches
from edgeproxy.server.users import Users
from edgeproxy.server.values import ValueService
from edgeproxy.shared import Store

MOST_RETIRED = 8
"""Older configurations whose handlers still run; each has its processes in memory."""


class Reloaded(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reload did."""

    revision: int | None
    """None where it could not be kept, of which `problem` says why: there will be no way back to it."""
    changed: list[str]
    """Keys that differ from before; none where the file says the same."""
    policy_files: list[str]
    """Files of policy modules that are other ones than before."""
    problem: str = ""
    """Why the revision could not be kept."""


class Control:
    """The running proxy: engine, policies and the file that they go by."""

    def __init__(self, loaded: Loaded, printer: LogPrinter) -> None:
        self.loaded = loaded
        self._file_of_start = loaded.name
        self.printer = printer
        self.engine: _native.Engine
        self.announcer = Announcer(printer)
        self.standing = Standing(printer.event)
        self.sinks = Sinks(self.announcer.bus, printer.aside)
        self.kernel = KernelGuard(self.announcer.bus, printer.event)
        self.shares: Shares | None = None
        self.values = ValueService(lambda: self.shares, self.announcer.bus.publish)
        self._attacks: tuple[asyncio.Task[None], int, SharedAttacks] | None = None
        self._frauds: tuple[asyncio.Task[None], SharedFraud] | None = None
        self.policies = Policies(loaded, printer.event, self._policies_state, self.values.connect)
        self._switches = Switches(Path(loaded.config.install.state_directory))
        self.fraud = FraudStore(Path(loaded.config.install.state_directory), printer.event)
        self._limits = Limits(Path(loaded.config.install.state_directory))
        for problem in filter(None, (self._switches.problem, self._limits.problem)):
            printer.event("what operators set cannot be read", level="error", values={"error": problem})
        self.routes = Routes(printer.event, self._routes_state, self._switches)
        self.users = Users(printer.event, self.announcer.state)
        self.started = time.monotonic()
        self.reloads = 0
        self.draining = asyncio.Event()
        self._level: str | None = None
        self.peer_faults: list[str] = []
        """Rows of `address`, `dispatcher` and `load_balancer` that cannot be used."""
        self._past_lookups: Counter[tuple[str, str]] = Counter()
        self._past_work: Counter[str] = Counter()
        self._past_restarts = 0
        self.banned_by_operators: set[str] = set()
        """Sources; some may have been let in again since."""
        self.revisions = Revisions(Path(loaded.config.install.state_directory) / "revisions")
        self._turn = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._retired: dict[asyncio.Task[None], Policies] = {}

    async def start(self) -> None:
        """Start policies and engine; raise as `run` does, with nothing left running."""
        serve_behind_workers(self.loaded.config.tuning.server_nice)
        store = self._store_for(self.loaded.config)
        hooks = await self.policies.start()
        try:
            tables = await self.routes.read(self.loaded, route_handlers(hooks)) if self.loaded.config.uses_routes else None
            config = await self._with_rows(self.loaded)
            bindings = await self.users.prepare(self.loaded.config, config.registrar.domains if config.registrar else ())
            document = to_document(config, hooks)
            with placed(self.loaded):
                self.engine = _native.Engine(document, self.policies.links, self.routes.switched(tables), self._machines_off(), bindings)
        except BaseException:
            await self.users.close()
            await self.policies.stop()
            await self.values.stop()
            raise
        # Workers have their threads: from here on what Python does, and the threads that it starts, may wait for theirs.
        step_back(self.loaded.config.tuning.server_nice)
        if tables:
            self.routes.use(self.engine, self.loaded, tables, serve=False)
        self._limits.apply(self.engine)
        self.fraud.restore(self.engine)
        self.standing.run(lambda: self.fraud.run(self.engine))
        self.users.use(self.loaded.config)
        self.users.attach(self.engine)
        self.announcer.attach(self.engine)
        self.announcer.stand(self.loaded, self.policies)
        self.sinks.use(self.loaded.config.events.sink, self.loaded.config.install.node)
        self.policies.watch(self.engine)
        await self.kernel.use(self.loaded.config, self.engine.bans)
        await self._use_shares(self.loaded.config, store)
        if counted := [name for name, limit in self.loaded.config.limit.items() if limit.counts == "calls"]:
            # Calls of an earlier process may live on, and are not counted here.
            self.printer.event("limits of calls begin with the calls that come", values={"limits": counted})
        self.announcer.state("node", 1, "serving")
        if self.loaded.config.uses_policies:
            self._policies_state(1, "started")

    def serves(self) -> None:
        """The start has come to its end: its file is the first to go back to. One that is refused leaves nothing behind."""
        self._keep([])

    def _store_for(self, config: Config) -> Store | None:
        """Return the store that a configuration names, if that is another one than before; raise `StorageError` where it cannot be used."""
        terms = config.shared
        return connected(terms) if terms and not (self.shares and self.shares.terms == terms) else None

    async def _use_shares(self, config: Config, store: Store | None) -> None:
        """Share by the store that a configuration names, if any; nothing here may fail."""
        terms = config.shared
        if self.shares and self.shares.terms != terms:
            self._share_guards(None, config)
            retired, self.shares = self.shares, None
            await retired.stop()
        if self.shares:
            await self.shares.keep_known()
            if self._attacks:
                self._attacks[2].window_seconds = config.authentication.attacks.window_seconds
        elif terms and store:
            self.shares = Shares(self.engine, terms, store, config.install.node, self.printer.event, self._shares_state)
            self._share_guards(self.shares, config)

    def _share_guards(self, shares: Shares | None, config: Config) -> None:
        """Count failures, bans and fraud with other nodes, or do so no more."""
        if self._frauds:
            self._frauds[0].cancel()
            self._frauds = None
        if shares and shares.terms.fraud and config.fraud:
            frauds = SharedFraud(self.engine, config.install.node, self.printer.event, self.fraud.kept_at)
            self._frauds = (self.standing.run(lambda: frauds.run(shares)), frauds)
        if self._attacks:
            task, number, _ = self._attacks
            task.cancel()
            self.announcer.bus.unsubscribe(number)
            self._attacks = None
        if shares and shares.terms.attacks:
            attacks = SharedAttacks(self.engine, config.authentication.attacks.window_seconds)
            number = self.announcer.bus.subscribe(["E_BAN_ADDED", "E_BAN_REMOVED"], attacks.take, "shared attacks")
            self._attacks = (self.standing.run(lambda: attacks.run(shares)), number, attacks)

    def _shares_state(self, status: int, details: str) -> None:
        self.announcer.state("shared", status, details)

    def _routes_state(self, status: int, details: str) -> None:
        self.announcer.state("routes", status, details)

    def _policies_state(self, status: int, details: str) -> None:
        self.announcer.state("policies", status, details)

    async def stop(self) -> None:
        """End everything."""
        for task in self._retiring:
            task.cancel()
        await self.kernel.stop()
        if self.shares:
            self._share_guards(None, self.loaded.config)
            await self.shares.stop()
        await self.sinks.stop()
        await self.routes.stop()
        await self.policies.stop()
        await self.values.stop()
        await self.users.detach()
        self.fraud.write(self.engine)
        await asyncio.to_thread(self.engine.stop)
        await self.users.finish(self.engine)

    def read(self, path: Path | None = None, text: str | None = None) -> Loaded:
        """Read what is to be applied: `text`, the file at `path`, or the file of the start; raise `ConfigError`."""
        name = str(path) if path else self._file_of_start
        return load_text(text, name) if text is not None else load(Path(name))

    async def reload(self, staged: Loaded) -> Reloaded:
        """Apply another configuration: all of it, or none.

        Raise `ConfigError` or `PolicyError`; then everything goes on as it was. A second reload waits for the first.
        """
        async with self._turn:
            return await self._apply(staged)

    async def _apply(self, staged: Loaded, of: int = 0) -> Reloaded:
        """Apply a configuration, or that of the revision `of` again; nobody else may do so meanwhile."""
        before = self.loaded
        check_addresses(staged)
        if restart := needs_restart(before.config, staged.config):
            line = Positions(staged.text).line
            places = [f"{staged.name}:{line(tuple(key.split('.')))}: {key}" for key in restart]
            raise ConfigError("\n".join(f"{place}: changes with a restart only" for place in places))
        # What takes long, and what fails, comes before anything changes.
        files = self.policies.changed_files()
        policies = self.policies if self.policies.serve_also(staged) else await self._started(staged)
        try:
            handlers = route_handlers(policies.hooks)
            keeps = self.routes.serve_also(staged, handlers) or not staged.config.uses_routes
            tables = None if keeps else await self.routes.read(staged, handlers)
            await self.users.prepare(staged.config)
            gone = await self._switch_over(staged, policies, tables)
        except BaseException:
            if policies is not self.policies:
                await policies.stop()
            raise
        if gone:
            self._later(self._close_listeners(gone, before.config.install.drain_seconds))
        if tables:
            self.routes.use(self.engine, staged, tables, serve=False)
        self.routes.go_by(staged)
        self.users.use(staged.config)
        self.loaded = staged
        self.reloads += 1
        self.announcer.stand(staged, self.policies)
        _native.set_log_level(self._level or staged.config.log.level)
        changed = changes(before.config, staged.config)
        revision, problem = self._keep(files, of)
        self.printer.event("reloaded", values={"revision": revision, "changed": changed, "policy_files": files})
        return Reloaded(revision, changed, files, problem)

    async def _started(self, staged: Loaded) -> Policies:
        """Start the modules beside those that run: what does not import, or hangs, changes nothing."""
        policies = Policies(staged, self.printer.event, self._policies_state, self.values.connect)
        await policies.start()
        return policies

    async def _switch_over(self, staged: Loaded, policies: Policies, tables: "_native.RouteTables | None") -> list[int]:
        """Give the engine the configuration with its policies and tables, all at once; return listeners that are gone."""
        anew = policies is not self.policies
        links, drain = (policies.links, [link.id for link in self.policies.links]) if anew else ([], [])
        document = to_document(await self._with_rows(staged), policies.hooks)
        store = self._store_for(staged.config)
        with placed(staged):
            gone = await asyncio.to_thread(self.engine.reload, document, links, drain, self.routes.switched(tables), self._machines_off())
        self.sinks.use(staged.config.events.sink, staged.config.install.node)
        await self.kernel.use(staged.config, self.engine.bans)
        # A limit that is new may be one that operators set before.
        self._limits.apply(self.engine)
        await self._use_shares(staged.config, store)
        if anew:
            policies.watch(self.engine)
            retired, self.policies = self.policies, policies
            self._retire(retired, self.loaded.config.tuning.policy.drain_seconds)
        return gone

    async def _with_rows(self, loaded: Loaded) -> Config:
        """Return a configuration with machines and addresses of the database; raise `StorageError`."""
        if not loaded.config.uses_peer_rows:
            self.peer_faults = []
            return loaded.config
        # A proxy without such rows needs no database, and none of the memory that libraries for one take.
        from edgeproxy.server.peer_rows import with_rows  # noqa: PLC0415

        config, faults = await with_rows(loaded)
        self.peer_faults = [" ".join(fault) for fault in faults]
        for fault in self.peer_faults[:20]:
            self.printer.event("a row cannot be used", level="warning", values={"fault": fault})
        return config

    async def reload_routes(self) -> RouteReport:
        """Read everything of the database anew; raise `StorageError` where that fails: then what served before goes on."""
        async with self._turn:
            if self.loaded.config.uses_peer_rows:
                try:
                    await self._switch_over(self.loaded, self.policies, None)
                except EdgeProxyError as error:
                    self.routes.failed(str(error))
                    raise
                if not self.routes.are_loaded:
                    self.routes.problem = ""
                    return self.routes.report
        return await self.routes.reload()

    async def _close_listeners(self, numbers: list[int], drain_seconds: float) -> None:
        """Close listeners once what was under way on them had time to end."""
        await asyncio.sleep(drain_seconds)
        await asyncio.to_thread(self.engine.close_listeners, numbers)
        self.printer.event("listeners closed", values={"count": len(numbers)})

    def _retire(self, policies: Policies, drain_seconds: float) -> None:
        """Let handlers of replaced processes come to their end; where too many wait for that, the oldest do no longer."""
        while len(self._retired) >= MOST_RETIRED:
            oldest = next(iter(self._retired))
            self._settle(oldest)
            oldest.cancel()
            self.printer.event(
                "policies of an older configuration end before their handlers", level="warning", values={"at_most": MOST_RETIRED}
            )
        task = self._later(policies.stop(drain_seconds))
        self._retired[task] = policies
        task.add_done_callback(self._settle)

    @property
    def _all_policies(self) -> list[Policies]:
        return [self.policies, *self._retired.values()]

    def _settle(self, task: asyncio.Task[None]) -> None:
        """What a replaced configuration's processes did is of the past."""
        if policies := self._retired.pop(task, None):
            self._past_lookups += policies.lookups
            self._past_work += policies.work
            self._past_restarts += policies.restarts

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    def _keep(self, policy_files: list[str], of: int = 0) -> tuple[int | None, str]:
        """Keep what serves now as a revision; return its number, or why there is none."""
        try:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return self.revisions.add(self.loaded.name, self.loaded.text, now, policy_files, of), ""
        except OSError as error:
            # A full disk keeps nobody from changing the configuration; there is only no way back to it later.
            self.printer.event("revision not kept", level="error", values={"error": str(error)})
            return None, f"the revision is not kept: {error}"

    async def rollback(self, number: int = 0) -> Reloaded:
        """Apply revision `number` again, or for 0 the file that served before this one; raise `ConfigError` where there is none."""
        async with self._turn:
            # What served before is known once nobody else is about to change it.
            wanted = self.revisions.wanted(number, self.loaded.text)
            return await self._apply(load_text(wanted.text, wanted.name), wanted.of or wanted.number)

    async def diff(self, staged: Loaded) -> dict[str, Any]:
        """Return what a reload would change, and what operators set at run time; raise as `reload` does for what it would refuse."""
        check_addresses(staged)
        hooks = await check_policies(staged) if staged.config.uses_policies else []
        config = staged.config
        if config.uses_peer_rows:
            from edgeproxy.server.peer_rows import with_rows  # noqa: PLC0415 - as in `_with_rows`

            config, _ = await with_rows(staged)
        with placed(staged):
            _native.check_document(to_document(config, hooks))
        run_time: dict[str, Any] = {"log.level": self._level} if self._level else {}
        if found := self._limits.set_by_operators:
            run_time["limit"] = found
        if switched := self._switches.in_words():
            run_time["switch"] = switched
        if bans := [source for source, *_ in self.engine.bans() if source in self.banned_by_operators]:
            run_time["ban"] = bans
        return {
            "changed": changes(self.loaded.config, staged.config),
            "policy_files": self.policies.changed_files(),
            "needs_restart": needs_restart(self.loaded.config, staged.config),
            "run_time": run_time,
        }

    def set_log_level(self, level: str | None) -> str:
        """Set the log level until it is set again; None goes back to that of the file. Raise `ValueError` for another word."""
        wanted = level or self.loaded.config.log.level
        _native.set_log_level(wanted)
        self._level = level
        return wanted

    def set_limit(self, name: str, key: str, most: int | None) -> None:
        """Set how many a key of a limit may have, or take that back; raise `StorageError`."""
        limit = self.loaded.config.limit.get(name)
        if limit and most is not None and (problem := limit.most_problem(most)):
            raise StorageError(f"limit {name}: {problem}")
        self._limits.set(self.engine, name, key, most)
        self.printer.event("limit set by an operator", values={"limit": name, "key": key, "most": most})

    def limits_set(self) -> dict[str, dict[str, int]]:
        """Return what operators set of limits."""
        return self._limits.set_by_operators

    def machines(self) -> list[dict[str, Any]]:
        """Return what is known of the machines of every peer that is a pool."""
        return [msgspec.json.decode(text) for text in self.engine.machines()]

    def switch_machine(self, peer: str, uri: str, on: bool) -> None:
        """Let a machine of a pool take calls, or only keep those that it has; raise `StorageError` where there is none."""
        if not self.engine.switch_machine(peer, uri, on):
            raise StorageError(f"peer {peer} is no pool with a machine {uri}")
        self.printer.event("switched by an operator", values={"kind": "machine", "name": uri, "peer": peer, "on": on})
        self._switches.set((peer, "machine", uri), on)

    def _machines_off(self) -> list[tuple[str, str]]:
        return [(peer, uri) for (peer, kind, uri), on in self._switches if kind == "machine" and not on]

    def drain(self) -> None:
        """Refuse new requests and end once nothing is under way, as SIGTERM does."""
        self.announcer.state("node", -1, "draining")
        self.draining.set()

    def counters(self) -> Mapping[str, int]:
        """Return every counter."""
        bus = self.announcer.bus
        own = {
            "policy_restarts": self._past_restarts + sum(policies.restarts for policies in self._all_policies),
            "policy_memory_bytes": sum(policies.memory_bytes for policies in self._all_policies),
            **dict.fromkeys(WORK, 0),
            **sum((policies.work for policies in self._all_policies), self._past_work),
            "server_faults": self.standing.faults,
            "log_lines_unwritten": self.printer.unwritten,
            "route_loads": self.routes.loads,
            "route_load_failures": self.routes.failures,
            "route_rows_unusable": self.routes.report.fault_count,
            "peer_rows_unusable": len(self.peer_faults),
            "reloads": self.reloads,
            "kernel_ban_failures": self.kernel.failures,
            "kernel_banned": self.kernel.sources,
            **self.sinks.counters(),
            **(self.shares.counters() if self.shares else {}),
            "shared_failures_uncounted": self._attacks[2].uncounted if self._attacks else 0,
            "shared_fraud_failures": self._frauds[1].failures if self._frauds else 0,
            "values_asked": self.values.asked,
            "values_failed": self.values.failed,
            "events_told": bus.told,
            "events_not_taken": bus.dropped,
        }
        return {**self.engine.counters(), **own}

    def barred(self) -> list[tuple[str, int, str]]:
        """Return accounts that may not call, for how many more seconds, and which node says so."""
        node = self.loaded.config.install.node
        others = self._frauds[1].barred if self._frauds else {}
        return [(user, left, node) for user, left in self.engine.barred()] + [(user, left, by) for user, (left, by) in others.items()]

    def unbar(self, user: str) -> bool:
        """Let an account call again, by all nodes that share figures; false where it was not barred."""
        found = self.engine.unbar(user)
        return bool(self._frauds and self._frauds[1].unbar(user)) or found

    def lookups(self) -> dict[str, dict[str, int]]:
        """Return how often each lookup came to what."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.loaded.config.lookup}
        for (name, outcome), count in sorted(sum((policies.lookups for policies in self._all_policies), self._past_lookups).items()):
            found.setdefault(name, {})[outcome] = count
        return found

    def status(self) -> dict[str, Any]:
        """Return what the proxy is and how it does."""
        counters = self.counters()
        config = self.loaded.config
        return {
            "version": __version__,
            "node": config.install.node,
            "file": self.loaded.name,
            "state": "draining" if self.draining.is_set() else "serving",
            "uptime_seconds": round(time.monotonic() - self.started),
            "listeners": {name: listener.address for name, listener in config.install.listener.items()},
            "peers": {name: peer.kind for name, peer in config.peer.items()},
            "policies": [policy.module for policy in config.policy],
            "peer_faults": self.peer_faults,
            "lookups": self.lookups(),
            "routes": self.routes.status(),
            "shared": self.shares.status() if self.shares else None,
            "location": {
                "bindings": counters["location_bindings"],
                "unwritten": counters["location_unwritten"],
                **self.users.location.status(),
            },
            **{name: counters[name] for name in ("calls", "transactions", "connections", "reloads", "policy_restarts", "panics")},
        }

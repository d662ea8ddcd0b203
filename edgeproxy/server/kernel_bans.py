"""Banned sources in the kernel: a table of nftables of our own, kept in step with the ban list in batches."""

import asyncio
import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edgeproxy.config.address import ListenAddress
from edgeproxy.config.flood import Kernel, family
from edgeproxy.config.root import Config
from edgeproxy.events import Bus, Event

ROUND_SECONDS = 0.5
"""How often bans that came or went are told the kernel."""
NFT_SECONDS = 10
"""Longest wait for `nft`."""
MOST = 10_000
"""Sources in one batch; the rest comes with the next."""
_METER_SECONDS = 60
_SURELY_LEFT_SECONDS = 5
"""A ban that has longer to go cannot have timed out in the kernel."""
_CHAIN = "guard"
_SETS = frozenset(f"{purpose}{version}" for purpose in ("all", "udp", "meter") for version in (4, 6))
_PORTS = re.compile(r"saddr @(?:all|udp)[46] \w+ dport (\{[^}]*\}|\d+) ")
_DROPPED = ("all4", "udp4", "all6", "udp6")
"""The sets that a rule each is for."""
Log = Callable[..., None]
Bans = Callable[[], list[tuple[str, int, int, str, str]]]
"""Sources with the seconds since their ban began, those that are left, why, and how its packets came."""


class NftError(Exception):
    """What `nft` said."""


class _Change(NamedTuple):
    source: str
    seconds: int
    proto: str


class KernelBans:
    """The table of one proxy; `bans` tells all that stand."""

    def __init__(self, settings: Kernel, ports: Iterable[int], bans: Bans, log: Log) -> None:
        self._settings = settings
        self._ports = sorted(set(ports))
        self._bans = bans
        self._log = log
        self._changes: dict[str, _Change] = {}
        self._standing = False
        self._made = False
        """Whether there may be a table of ours."""
        self._taken = False
        """Whether another proxy has it since."""
        self.failures = 0
        self._problem = ""
        """What was told of the last failure."""
        self._inside: dict[str, str] = {}
        """The set that each source is in."""

    def take(self, event: Event) -> bool:
        """Note a ban that came or went."""
        values: Mapping[str, int | str] = event.parameters()
        source = str(values["ip"])
        self._changes[source] = _Change(source, int(values.get("seconds", 0)), str(values.get("proto", "")))
        return True

    async def run(self) -> None:
        """Keep the kernel in step until cancelled; then take our table away."""
        try:
            checked = 0.0
            while True:
                checked += ROUND_SECONDS
                try:
                    if not self._standing or checked >= self._settings.check_seconds:
                        await self._see_to_table()
                        checked = 0.0
                    await self._tell_changes()
                except Exception as error:
                    # Whatever it is, the next round is another one: without it the kernel would drop nothing any more, and nobody know.
                    self._failed(NftError(f"{type(error).__name__}: {error}"))
                    self._standing = False
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            await asyncio.shield(self.remove())

    async def _see_to_table(self) -> None:
        try:
            if self._standing:
                await self._look_at_table()
                return
        except NftError as error:
            self._log("the table of banned sources is not as it was made, it is made anew", level="warning", values={"error": str(error)})
        self._standing = False
        try:
            if await self._is_taken():
                self._made = False
                raise NftError(
                    f"another proxy has the table inet {self._settings.table} now: each needs one of its own, see [flood.kernel] table"
                )
            if await _is_foreign(self._settings.table, whole=not self._made):
                self._made = False
                raise NftError(f"the table inet {self._settings.table} is somebody else's: nothing is done to it, name another one")
        except NftError as error:
            self._failed(error)
            return
        self._made = True
        standing = [_Change(source, left, proto) for source, _, left, _, proto in self._bans() if left > 0][: self._settings.max_sources]
        self._changes.clear()
        self._inside.clear()
        try:
            await _nft(self._table() + self._lines(standing))
        except NftError as error:
            self._failed(error)
            return
        self._standing, self._problem = True, ""
        self._log("banned sources are dropped in the kernel", values={"table": self._settings.table, "sources": self.sources})

    async def _look_at_table(self) -> None:
        """Raise `NftError` where the table or its rules are gone, or it has lost a source that must be there: one for each look, since they may be many."""
        printed = await _nft(f"list table inet {self._settings.table}\n", "--terse")
        missing = [own for own in _DROPPED if f"saddr @{own} " not in printed]
        if missing:
            raise NftError(f"the rule for {', '.join(missing)} is gone")
        if _ports_in(printed) != set(self._ports):
            raise NftError("it drops for other ports")
        there = [source for source, _, left, _, _ in self._bans() if left > _SURELY_LEFT_SECONDS and source in self._inside]
        waiting = [source for source in there if source not in self._changes]
        if waiting:
            source = random.choice(waiting)  # noqa: S311 - nobody gains by guessing it
            await _nft(f"get element inet {self._settings.table} {self._inside[source]} {{ {source} }}\n")

    async def _is_taken(self) -> bool:
        """Whether the table that was ours drops for other ports now."""
        if self._made or self._taken:
            try:
                printed = await _nft(f"list table inet {self._settings.table}\n", "--terse")
            except NftError:
                printed = ""
            self._taken = _ports_in(printed) not in (set(), set(self._ports))
        return self._taken

    async def _tell_changes(self) -> None:
        if not self._changes or not self._standing:
            return
        batch = [self._changes.pop(source) for source in list(self._changes)[:MOST]]
        try:
            await _nft(self._lines(batch))
        except NftError as error:
            # What one batch lacks nobody knows: all is told anew.
            self._failed(error)
            self._standing = False

    def _failed(self, error: NftError) -> None:
        self.failures += 1
        if str(error) == self._problem:
            # It is tried again and again, and told once.
            return
        self._problem = str(error)
        self._log("nft failed, banned sources are dropped by us alone", level="error", values={"error": str(error)})

    async def remove(self) -> None:
        """Take our table away."""
        if self._made:
            self._standing = False
            is_others = await self._is_taken() or await _is_foreign(self._settings.table, whole=False)
            self._made = False
            if is_others:
                return
            try:
                await _nft(f"destroy table inet {self._settings.table}\n")
            except NftError:
                await _nft(f"add table inet {self._settings.table}\ndelete table inet {self._settings.table}\n")

    def _table(self) -> str:
        name, rate = self._settings.table, self._settings.udp_packets_per_minute
        size, ports = self._settings.max_sources, ", ".join(map(str, self._ports))
        lines = [f"add table inet {name}", f"delete table inet {name}", f"table inet {name} {{"]
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            lines += [f"  set {purpose}{version} {{ type {kind}; flags timeout; size {size}; }}" for purpose in ("all", "udp")]
            lines.append(f"  set meter{version} {{ type {kind}; flags dynamic,timeout; timeout {_METER_SECONDS}s; size {size}; }}")
        # Before connections are tracked, so that a flood does not fill that table either.
        lines += [f"  chain {_CHAIN} {{", "    type filter hook prerouting priority -310; policy accept;"]
        for address, version in (("ip", 4), ("ip6", 6)):
            lines.append(f"    {address} saddr @all{version} th dport {{ {ports} }} counter drop")
            meter = f"update @meter{version} {{ {address} saddr limit rate over {rate}/minute burst {max(rate // 60, 5)} packets }}"
            lines.append(f"    {address} saddr @udp{version} udp dport {{ {ports} }} {meter} counter drop")
        return "\n".join([*lines, "  }", "}", ""])

    def _lines(self, changes: list[_Change]) -> str:
        """Return what changes the sets, a line for each: `nft` reads long lines faster than many."""
        gone: dict[str, list[str]] = {}
        new: dict[str, list[str]] = {}
        for change in changes:
            if (own := self._inside.pop(change.source, "")) != "":
                gone.setdefault(own, []).append(change.source)
            if change.seconds and len(self._inside) < self._settings.max_sources:
                own = f"{'udp' if change.proto == 'udp' else 'all'}{family(change.source)}"
                new.setdefault(own, []).append(f"{change.source} timeout {change.seconds}s")
                self._inside[change.source] = own
        table = f"element inet {self._settings.table}"
        lines = [
            # Its timeout may have taken it out at this moment: what is added before is there to be deleted.
            line
            for own, sources in gone.items()
            for line in (f"add {table} {own} {{ {', '.join(sources)} }}", f"delete {table} {own} {{ {', '.join(sources)} }}")
        ]
        lines += [f"add {table} {own} {{ {', '.join(elements)} }}" for own, elements in new.items()]
        return "\n".join([*lines, ""])

    @property
    def sources(self) -> int:
        """Sources that the kernel drops."""
        return len(self._inside)


class KernelGuard:
    """The kernel's table as the configuration at hand wants it: none, or one that runs."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus = bus
        self._log = log
        self._terms: tuple[Kernel, list[int]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._failures = 0
        self._bans: KernelBans | None = None

    async def use(self, config: Config, bans: Bans) -> None:
        """Go by another configuration; what is wanted as it is goes on."""
        kernel = config.flood.kernel if config.flood else Kernel()
        terms = (kernel, ports_of(config)) if kernel.enabled else None
        if terms == self._terms:
            return
        await self.stop()
        self._terms = terms
        if terms:
            self._bans = KernelBans(*terms, bans, self._log)
            self._number = self._bus.subscribe(["E_BAN_ADDED", "E_BAN_REMOVED"], self._bans.take, "kernel")
            self._task = asyncio.create_task(self._bans.run())

    async def stop(self) -> None:
        """Take the table away."""
        if self._task and self._bans:
            self._bus.unsubscribe(self._number)
            self._failures += self._bans.failures
            self._task.cancel()
            done = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(done[0], Exception):
                self._log("the table of banned sources cannot be removed", level="error", values={"error": str(done[0])})
        self._terms = self._task = self._bans = None

    @property
    def failures(self) -> int:
        """How often `nft` failed."""
        return self._failures + (self._bans.failures if self._bans else 0)

    @property
    def sources(self) -> int:
        """Sources that the kernel drops."""
        return self._bans.sources if self._bans else 0


def ports_of(config: Config) -> list[int]:
    """Return the ports that SIP comes to."""
    return [ListenAddress.parse(listener.address).port for listener in config.install.listener.values()]


def _ports_in(printed: str) -> set[int]:
    """Return the ports that a printed table drops for."""
    return {int(port) for ports in _PORTS.findall(printed) for port in re.findall(r"\d+", ports)}


async def _is_foreign(table: str, *, whole: bool) -> bool:
    """Whether there is such a table, and it is none that a proxy made: `whole` as it was left behind, or as what is left of it."""
    objects = json.loads(await _nft("", "-j", "list", "tables", "inet"))["nftables"]
    if not any(own.get("table", {}).get("name") == table for own in objects):
        return False
    objects = json.loads(await _nft("", "-j", "--terse", "list", "table", "inet", table))["nftables"]
    chains = {own["chain"]["name"] for own in objects if "chain" in own}
    others = {own[kind]["name"] for kind in ("map", "flowtable", "counter", "quota") for own in objects if kind in own}
    sets = {own["set"]["name"] for own in objects if "set" in own}
    if whole:
        return bool(others) or chains != {_CHAIN} or sets != _SETS
    return bool(others) or not (chains <= {_CHAIN} and sets <= _SETS)


async def _nft(script: str, *options: str) -> str:
    """Run a script, or without one what `options` ask, and return what `nft` printed; raise `NftError` with what it said."""
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise NftError("the program nft is not installed")
    pipe = asyncio.subprocess.PIPE
    # From a file: a program that ends before it has read a pipe to its end makes writing there an error of its own.
    with tempfile.TemporaryFile() as source:
        source.write(script.encode())
        source.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                program, *options, *(("-f", "-") if script else ()), stdin=source, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            raise NftError(str(error)) from error
    try:
        async with asyncio.timeout(NFT_SECONDS):
            printed, said = await process.communicate()
    except TimeoutError:
        raise NftError(f"nft did not answer within {NFT_SECONDS} s") from None
    finally:
        if process.returncode is None:
            # Whoever waits no more must not leave it at work on our table.
            process.kill()
            await process.wait()
    if process.returncode:
        raise NftError(said.decode(errors="replace").strip().splitlines()[0] if said else f"nft ended with {process.returncode}")
    return printed.decode(errors="replace")

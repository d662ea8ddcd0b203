"""`[dns]`, `[records]`, `[log]`, `[api]`, `[trace]`, `[events]` and `[sip]`: what serves the engine or is served by it."""

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import check_host, split_host_port
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.events import CATALOGUE, is_known
from edgeproxy.events.sink import Sink


class Dns(msgspec.Struct, frozen=True):
    """`[dns]`: name resolution (RFC 3263)."""

    servers: list[str] = field(default_factory=list)
    """Name servers as `address[:port]`; by default those of the system."""
    timeout_milliseconds: Annotated[int, Meta(ge=10, le=60_000)] = 1_000
    """Longest wait for one server."""
    cache_entries: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    """Answers kept for as long as their time to live."""
    questions: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Questions under way at once; more are answered with the last good answer, or as if the name did not exist."""
    stale_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3_600
    """How long the last good answer serves where no name server answers; 0 never."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for server in self.servers:
            try:
                ipaddress.ip_address(split_host_port(server)[0])
            except ValueError:
                faults.add((*path, "servers"), f"expected an IP address with an optional port, got: {server}")


class Database(msgspec.Struct, frozen=True):
    """`[database]`: what is written to a database that OpenSIPS made; one of ours has all tables written that must be."""

    writes: list[Literal["location"]] = field(default_factory=list)
    """Tables of an OpenSIPS database that may be written; none by default, so that an account that may only SELECT suffices."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if len(set(self.writes)) != len(self.writes):
            faults.add((*path, "writes"), "expected each table once")


class Records(msgspec.Struct, frozen=True):
    """`[records]`: call records as JSON lines."""

    enabled: bool = True
    """Whether records are written."""
    path: str = ""
    """The file; by default `records/calls.jsonl` in the state directory."""
    rotate_bytes: Annotated[int, Meta(ge=4_096)] = 256 << 20
    """Size at which the file is renamed to `.1` and a new one begun."""
    keep_files: Annotated[int, Meta(ge=0, le=10_000)] = 10
    """Renamed files kept."""
    queue: Annotated[int, Meta(ge=1, le=10_000_000)] = 65_536
    """Records that may wait to be written; more are dropped and counted."""


class Log(msgspec.Struct, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["error", "warning", "info", "debug"] = "info"
    """The least important level written."""
    mask_identities: bool = False
    """Whether addresses, users and Call-IDs are left out."""


class Api(msgspec.Struct, frozen=True):
    """`[api]`: management. The socket `control.sock` in the state directory, mode 0600, is always there."""

    listen: str = ""
    """`address:port` for the same over TCP, behind the token; by default none. Use a loopback address unless a proxy with TLS stands before it."""
    token_file: str = ""
    """File with the token that callers over TCP must bring as `Authorization: Bearer TOKEN`; needed with `listen`. Read when the proxy starts: another token needs a restart."""
    metrics_listen: str = ""
    """`address:port` for `/metrics` alone, without a token; by default none."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for key in ("listen", "metrics_listen"):
            if not (text := getattr(self, key)):
                continue
            try:
                host, port = split_host_port(text)
                ipaddress.ip_address(host)
            except ValueError:
                port = None
            if port is None:
                faults.add((*path, key), f"expected an IP address with a port, got: {text}")
        if self.listen and not self.token_file:
            faults.add(
                (*path, "token_file"),
                "missing",
                "management over TCP is never open: name a file that holds a token of 16 characters or more",
            )


class Trace(msgspec.Struct, frozen=True):
    """`[trace]`: the latest messages and decisions, for `edgeproxy trace` and a Homer collector."""

    memory_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 4 << 20
    """Memory for them, per worker; the oldest make room for the newest. 4 MiB hold some 5,000 messages; 0 keeps none. Line ends that keep a way open are no messages."""
    collector: str = ""
    """`address:port` of a collector that takes HEP version 3 over UDP; by default none. Credentials and media keys are not sent."""
    capture_id: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    """What the collector knows this node by."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.collector:
            return
        if self.memory_bytes == 0:
            faults.add((*path, "memory_bytes"), "expected more than 0 where a collector is named: what it gets passes through this memory")
        try:
            host, port = split_host_port(self.collector)
            ipaddress.ip_address(host)
        except ValueError:
            port = None
        if port is None:
            faults.add((*path, "collector"), f"expected an IP address with a port, got: {self.collector}")


class Events(msgspec.Struct, frozen=True):
    """`[events]`: facts for whoever listens; those that nobody listens to cost nothing."""

    log: list[str] = field(default_factory=list)
    """Events that are written to the log, by name: `docs/events.md` lists them."""
    sink: dict[str, Sink] = field(default_factory=dict)
    """Who is told outside."""
    slow_milliseconds: Annotated[int, Meta(ge=0, le=60_000)] = 0
    """A name resolution or a policy's decision that takes longer is told as `E_CORE_THRESHOLD`; 0 tells nothing."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for name in self.log:
            if not is_known(name):
                faults.add(
                    (*path, "log"), f"no such event: {name}", f"there are {', '.join(sorted(CATALOGUE))}; operators' own begin with X_"
                )
        for name, sink in self.sink.items():
            if fault := sink.problem():
                faults.add((*path, "sink", name, fault[0]), fault[1], fault[2])


class Sip(msgspec.Struct, frozen=True):
    """`[sip]`: how the proxy shows itself."""

    aliases: list[str] = field(default_factory=list)
    """Further names of this proxy as `host[:port]`; without a port at every port that it listens on."""
    server_header: str = ""
    """Server header field of responses that the proxy makes itself; empty sends none."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for alias in self.aliases:
            try:
                check_host(split_host_port(alias)[0])
            except ValueError as error:
                faults.add((*path, "aliases"), f"{error}, got: {alias}")
        if not self.server_header.isprintable():
            faults.add((*path, "server_header"), "expected printable text")

"""`[install]`: what lives as long as the process; a change needs a restart."""

from typing import Annotated

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import ListenAddress, check_host, split_host_port
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Listener(msgspec.Struct, frozen=True):
    """One listening socket, `[install.listener.NAME]`."""

    address: str
    """Transport, local address and port: `udp:192.0.2.10:5060`, `tcp:[2001:db8::10]:5060`."""
    advertise: str = ""
    """Host and port written into Via and Record-Route instead of the address; needed where it is a wildcard or behind NAT."""
    network: str = ""
    """Name of the network that the listener faces; for the reader only."""
    workers: list[Annotated[int, Meta(ge=0, le=63)]] = field(default_factory=list)
    """Numbers of the workers that receive here, from 0; empty: all of them. With `pin_processors` this ties a listener to processors."""

    def check(self, path: KeyPath, faults: Faults, workers: int) -> None:
        """Check what types cannot."""
        for number in self.workers:
            if number >= workers:
                faults.add((*path, "workers"), f"expected numbers below install.workers ({workers}), got: {number}")
        try:
            listen = ListenAddress.parse(self.address)
        except ValueError as error:
            faults.add((*path, "address"), f"{error}, got: {self.address}")
            return
        if listen.host.is_unspecified and not self.advertise:
            faults.add(
                (*path, "address"),
                f"a wildcard address needs `advertise`, got: {self.address}",
                "peers answer to what Via says, which cannot be a wildcard",
            )
        if self.advertise:
            try:
                check_host(split_host_port(self.advertise)[0])
            except ValueError as error:
                faults.add((*path, "advertise"), f"{error}, got: {self.advertise}")


class Install(msgspec.Struct, frozen=True):
    """`[install]`."""

    node: Name = "edge1"
    """Name of this node; it stands in records, and its hash in the tokens that dialogs carry."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads that handle SIP. A call lives on one of them."""
    policy_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that run the modules of `[[policy]]`, if there are any."""
    media_workers: Annotated[int, Meta(ge=0, le=64)] = 1
    """Threads that relay media. No system uses them yet."""
    pin_processors: list[Annotated[int, Meta(ge=0, le=1023)]] = field(default_factory=list)
    """Processors to pin the workers to, in turn; empty leaves it to the kernel."""
    state_directory: Annotated[str, Meta(min_length=1)] = "/var/lib/edgeproxy"
    """Where keys and records are kept; made if missing. A relative path starts where the process was started."""
    user: str = ""
    """User to become before anything else, where the process starts as root; only the right to bind low ports is kept, and that only where a listener has one."""
    group: str = ""
    """Group to become; by default that of `user`."""
    database: str = "sqlite:///edgeproxy.db"
    """Where provisioned data lives, as a URL (`sqlite:///`, `postgresql://`, `mysql://`); `EDGEPROXY_DATABASE` overrides it. A relative SQLite file lies in the state directory. Policies ask it by `call.sql`; PostgreSQL and MySQL need the extras `postgres` and `mysql`."""
    drain_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 10
    """How long SIGTERM waits for calls to end before the process does."""
    listener: dict[str, Listener] = field(default_factory=dict)
    """The listeners by name; at least one."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.listener:
            faults.add((*path, "listener"), "no listener", 'add [install.listener.NAME] with address = "udp:ADDRESS:PORT"')
        if self.group and not self.user:
            faults.add((*path, "group"), "a group needs a user")
        seen: dict[str, str] = {}
        for name, listener in self.listener.items():
            listener.check((*path, "listener", name), faults, self.workers)
            if (other := seen.setdefault(listener.address, name)) != name:
                faults.add((*path, "listener", name, "address"), f"same address as listener {other}, got: {listener.address}")
        scheme = self.database.partition(":")[0]
        if scheme not in {"sqlite", "postgresql", "mysql"}:
            faults.add((*path, "database"), f"expected a sqlite:///, postgresql:// or mysql:// URL, got: {scheme}:")

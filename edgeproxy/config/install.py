"""`[install]`: what lives as long as the process; a change needs a restart."""

from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import ListenAddress, check_host, split_host_port
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Port = Annotated[int, Meta(ge=1_024, le=65_535)]
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Listener(msgspec.Struct, frozen=True):
    """One listening socket, `[install.listener.NAME]`."""

    address: str
    """Transport, local address and port: `udp:192.0.2.10:5060`, `tcp:[2001:db8::10]:5060`."""
    advertise: str = ""
    """Host and port written into Via and Record-Route instead of the address; needed where it is a wildcard or behind NAT."""
    network: str = ""
    """Name of the network that the listener faces: media of calls between two networks is relayed."""
    media_address: str = ""
    """Local address of the ports for media that faces this network; by default that of `address`."""
    media_advertise: str = ""
    """Address that session descriptions say instead of it; by default the host of `advertise` where that is an address, else the one that is bound."""
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
        for key, text in (("media_address", self.media_address), ("media_advertise", self.media_advertise)):
            try:
                family = ip_address(text).version if text else listen.host.version
            except ValueError:
                faults.add((*path, key), f"expected an IP address, got: {text}")
                continue
            if family != listen.host.version:
                faults.add((*path, key), f"expected an address of the family of `address`, got: {text}")


class Install(msgspec.Struct, frozen=True):
    """`[install]`."""

    node: Name = "edge1"
    """Name of this node; it stands in records, and its hash in the tokens that dialogs carry."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads that handle SIP. A call lives on one of them."""
    policy_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that run the modules of `[[policy]]`, if there are any."""
    media_workers: Annotated[int, Meta(ge=0, le=64)] = 1
    """Threads that relay media; they start with the first configuration that has a `[media]`."""
    media_ports: tuple[Port, Port] = (30_000, 39_999)
    """First and last port for media, at each address; a stream takes four. Firewalls must let UDP in there."""
    media_ready: Annotated[int, Meta(ge=1, le=4_096)] = 256
    """Pairs of ports kept bound for each worker at each address, so that no call waits for one; two for each stream of a call that begins. At least two for each of `media.streams` are."""
    media_dscp: Annotated[int, Meta(ge=0, le=63)] = 46
    """Class in which media is sent (RFC 2474); 46 is expedited forwarding, 0 none."""
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
        self._check_ports((*path, "media_ports"), faults)
        seen: dict[str, str] = {}
        for name, listener in self.listener.items():
            listener.check((*path, "listener", name), faults, self.workers)
            if (other := seen.setdefault(listener.address, name)) != name:
                faults.add((*path, "listener", name, "address"), f"same address as listener {other}, got: {listener.address}")
        scheme = self.database.partition(":")[0]
        if scheme not in {"sqlite", "postgresql", "mysql"}:
            faults.add((*path, "database"), f"expected a sqlite:///, postgresql:// or mysql:// URL, got: {scheme}:")

    def _check_ports(self, path: KeyPath, faults: Faults) -> None:
        first, last = self.media_ports
        pairs = (last + 1 - first) // 2
        if pairs < 2 * max(self.media_workers, 1) * self.workers:
            faults.add(path, f"expected two pairs of ports for each worker and media worker, got: {first} to {last}")

    def ready_pairs(self, streams: int) -> int:
        """How many pairs of ports each worker finds ready at each address: as many as a call with so many streams needs, and no more than half of all, so that they can be shared."""
        first, last = self.media_ports
        share = (last + 1 - first) // 2 // max(self.media_workers, 1) // (2 * self.workers)
        return max(1, min(max(self.media_ready, 2 * streams), share))

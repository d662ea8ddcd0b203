"""The whole file."""

import msgspec
from msgspec import field

from edgeproxy.config.authentication import Authentication
from edgeproxy.config.call_ping import CallPing
from edgeproxy.config.faults import Faults
from edgeproxy.config.flood import Flood
from edgeproxy.config.fraud import Fraud
from edgeproxy.config.install import Install
from edgeproxy.config.limits import Emergency, KeyLimit
from edgeproxy.config.lookup import Lookup
from edgeproxy.config.media import Media
from edgeproxy.config.nat import Nat
from edgeproxy.config.numbers import Gateway, NumberSet
from edgeproxy.config.peer import Peer
from edgeproxy.config.policy import PolicyModule
from edgeproxy.config.registrar import Registrar
from edgeproxy.config.routing import Route, Routing
from edgeproxy.config.services import Api, Database, Dns, Events, Log, Records, Sip, Trace
from edgeproxy.config.session_timer import SessionTimer
from edgeproxy.config.shared import Shared
from edgeproxy.config.tuning import Tuning


class Config(msgspec.Struct, frozen=True):
    """The whole file."""

    install: Install = field(default_factory=Install)
    """What needs a restart to change."""
    peer: dict[str, Peer] = field(default_factory=dict)
    """Who may send requests, by name; anybody else is refused."""
    policy: list[PolicyModule] = field(default_factory=list)
    """Modules in Python that decide, asked in this order."""
    route: dict[str, Route] = field(default_factory=dict)
    """Routes by provisioned rules."""
    lookup: dict[str, Lookup] = field(default_factory=dict)
    """Services that are asked about numbers."""
    numbers: dict[str, NumberSet] = field(default_factory=dict)
    """Rules that make one form of a number of another."""
    gateway: dict[str, Gateway] = field(default_factory=dict)
    """What the file says of gateways of the database, by their names."""
    routing: Routing = field(default_factory=Routing)
    """How rules and gateways are read."""
    registrar: Registrar | None = None
    """Users who register here."""
    nat: Nat = field(default_factory=Nat)
    """Phones behind a NAT."""
    media: Media | None = None
    """RTP that is relayed."""
    authentication: Authentication = field(default_factory=Authentication)
    """How subscribers prove who they are."""
    flood: Flood | None = None
    """Sources that send too much, or behave as scanners do."""
    fraud: Fraud | None = None
    """What accounts do, watched against profiles."""
    shared: Shared | None = None
    """The store by which nodes share limits and values."""
    limit: dict[str, KeyLimit] = field(default_factory=dict)
    """What callers may have of calls and requests."""
    session_timer: SessionTimer | None = None
    """How often sessions must be refreshed."""
    call_ping: CallPing | None = None
    """Whether the sides of calls are still there."""
    emergency: Emergency = field(default_factory=Emergency)
    """Calls for help."""
    database: Database = field(default_factory=Database)
    """What is written to a database that is not ours."""
    sip: Sip = field(default_factory=Sip)
    """How the proxy shows itself."""
    tuning: Tuning = field(default_factory=Tuning)
    """Timers, bounds, buffers."""
    dns: Dns = field(default_factory=Dns)
    """Name resolution."""
    records: Records = field(default_factory=Records)
    """Call records."""
    log: Log = field(default_factory=Log)
    """Logging."""
    api: Api = field(default_factory=Api)
    """Management and metrics."""
    trace: Trace = field(default_factory=Trace)
    """The latest messages, kept to be looked at."""
    events: Events = field(default_factory=Events)
    """What is told of what happens."""

    def check(self, faults: Faults) -> None:
        """Check what types cannot, over all tables."""
        self.install.check(("install",), faults)
        if self.media:
            self.media.check(("media",), faults)
        if self.media and not self.media.rtpengine and not self.install.media_workers:
            faults.add(("media",), "media needs a thread that relays it, got install.media_workers = 0")
        self.tuning.check(("tuning",), faults)
        self.dns.check(("dns",), faults)
        self.sip.check(("sip",), faults)
        self.api.check(("api",), faults)
        self.trace.check(("trace",), faults)
        self.events.check(("events",), faults)
        self.routing.check(("routing",), faults)
        for name, route in self.route.items():
            route.check(("route", name), faults)
        if self.registrar:
            self.registrar.check(("registrar",), faults)
        self.authentication.check(("authentication",), faults)
        self.database.check(("database",), faults)
        self._check_gateways(faults)
        for number, module in enumerate(self.policy):
            module.check(("policy", str(number)), faults)
        sets = frozenset(self.numbers)
        for name, numbers in self.numbers.items():
            numbers.check(("numbers", name), faults)
        for name, gateway in self.gateway.items():
            gateway.check(("gateway", name), faults, sets)
        self._check_guard(faults)
        for name, lookup in self.lookup.items():
            lookup.check(("lookup", name), faults)
        keeps_users = self.registrar is not None and self.registrar.mode == "keep"
        has_core = any(peer.kind == "core" and peer.has_targets for peer in self.peer.values())
        for name, peer in self.peer.items():
            peer.check(("peer", name), faults, set(self.install.listener), set(self.route))
            if peer.media in {"auto", "always"} and not self.media:
                faults.add(("peer", name, "media"), "media is relayed only where there is a [media]")
            peer.check_numbers(("peer", name), faults, sets)
            peer.check_lookups(("peer", name), faults, set(self.lookup))
            if peer.authenticate and (peer.kind != "subscribers" or not self.registrar):
                faults.add(("peer", name, "authenticate"), "only subscribers are asked who they are, and only with a [registrar]")
            if peer.kind == "subscribers" and not (peer.has_targets or peer.route or has_core or keeps_users):
                faults.add(
                    ("peer", name, "kind"),
                    "subscribers need a core to go to, or a [registrar]",
                    'add a peer of kind "core" with `to`: sending them to any Request-URI would make an open relay',
                )

    def _check_guard(self, faults: Faults) -> None:
        """Check floods, limits and emergency calls."""
        if self.flood:
            self.flood.check(("flood",), faults)
            if self.flood.kernel.enabled and self.install.user:
                faults.add(
                    ("flood", "kernel", "enabled"),
                    "a process that became another user may not change the kernel's rules",
                    "leave out install.user",
                )
        if self.shared:
            self.shared.check(("shared",), faults)
            if self.shared.fraud and not self.fraud:
                faults.add(("shared", "fraud"), "figures are counted only where there is a [fraud]")
        if self.call_ping:
            self.call_ping.check(("call_ping",), faults)
        if self.session_timer:
            self.session_timer.check(("session_timer",), faults)
        if self.fraud:
            self.fraud.check(("fraud",), faults)
        for name, peer in self.peer.items():
            if peer.fraud_profile and not self.fraud:
                faults.add(("peer", name, "fraud_profile"), "calls are watched only where there is a [fraud]")
            elif self.fraud:
                self.fraud.check_profile(("peer", name, "fraud_profile"), peer.fraud_profile, faults)
        for name, limit in self.limit.items():
            limit.check(("limit", name), faults, set(self.peer), has_store=self.shared is not None)
        self.emergency.check(("emergency",), faults, {name for name, peer in self.peer.items() if peer.has_targets}, set(self.route))

    def _check_gateways(self, faults: Faults) -> None:
        """Check whose the provisioned gateways are: what one sends must be known as somebody's, and so must what goes there."""
        owners: dict[int, str] = {}
        for name, peer in self.peer.items():
            for kind in peer.gateway_types:
                if (other := owners.setdefault(kind, name)) != name:
                    faults.add(("peer", name, "gateway_types"), f"type {kind} belongs to peer {other}")
        if self.route and not owners:
            faults.add(
                ("route",),
                "no peer has the gateways that routes lead to",
                'add a peer of kind "gateway" with gateway_types = [-1] for all of them',
            )

    def authenticates(self, peer: Peer) -> bool:
        """Whether requests of a peer must prove whose they are."""
        if peer.authenticate is None:
            return peer.kind == "subscribers" and self.registrar is not None and self.registrar.mode == "keep"
        return peer.authenticate

    @property
    def uses_credentials(self) -> bool:
        """Whether the table `subscriber` is asked."""
        return any(self.authenticates(peer) for peer in self.peer.values())

    @property
    def uses_policies(self) -> bool:
        """Whether policy processes are needed."""
        return bool(self.policy) or any(peer.lookups for peer in self.peer.values())

    @property
    def uses_peer_rows(self) -> bool:
        """Whether the database says who peers are, where their calls go, or which domains, aliases, exemptions, limits and fraud rules there are."""
        registrar = self.registrar
        rows = registrar is not None and (registrar.domains_from_database or registrar.aliases_from_database)
        rows = rows or any(limit.rows for limit in self.limit.values()) or (self.fraud is not None and self.fraud.rows)
        return rows or self.authentication.attacks.exempt_group is not None or any(peer.uses_rows for peer in self.peer.values())

    @property
    def optional_tables(self) -> frozenset[str]:
        """The kinds of rows that are read only where something needs them."""
        dialled = any(numbers.dialplan is not None for numbers in self.numbers.values())
        grouped = any(route.caller_groups != "off" for route in self.route.values())
        return frozenset({"dialplan"} if dialled else ()) | frozenset({"groups"} if grouped else ())

    @property
    def uses_routes(self) -> bool:
        """Whether rules, gateways or dial plans are to be read."""
        dialled = any(numbers.dialplan is not None for numbers in self.numbers.values())
        return bool(self.route) or dialled or any(peer.gateway_types for peer in self.peer.values())

"""`[peer.NAME]`: who may send requests, and where they go."""

import ipaddress
import re
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import MatchRule, check_host, split_host_port
from edgeproxy.config.faults import Faults
from edgeproxy.config.media import Engage
from edgeproxy.config.numbers import NumberUse
from edgeproxy.config.positions import KeyPath

_URI = re.compile(r"^(?i:sips?):(?:[^@\s<>]+@)?(?P<place>(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?)(?P<parameters>;[^\s<>]*)?$")
StatusCode = Annotated[int, Meta(ge=300, le=599)]
NEVER_PROBED, PROBED_WHILE_DOWN, ALWAYS_PROBED = 0, 1, 2
"""`probe_mode` of gateways and machines."""
MachineCalls = Annotated[int, Meta(ge=0, le=4_294_967_295)]


def target_problem(uri: str) -> str:
    """Return what is wrong with a target; empty where nothing is."""
    match = _URI.match(uri)
    if not match:
        return f"expected a SIP URI with a host, got: {uri}"
    try:
        host, _ = split_host_port(match["place"])
        # The last label of a name is no number (RFC 3261 section 25.1): what ends with one is meant as an address.
        if host.rstrip(".").rpartition(".")[2].isdecimal():
            ipaddress.ip_address(host)
        check_host(host)
    except ValueError as error:
        return f"{error}, got: {uri}"
    names = [parameter.partition("=")[0].lower() for parameter in (match["parameters"] or "").split(";")[1:]]
    if len(set(names)) < len(names):
        return f"expected each parameter once, got: {uri}"
    if uri.lower().startswith("sips:") or re.search(r";transport=(?!udp|tcp)", uri, re.IGNORECASE):
        return f"expected transport udp or tcp, got: {uri}"
    return ""


class Machine(NamedTuple):
    """What one machine of a pool has of its own, beside its URI."""

    weight: int
    """Its share of the calls."""
    calls: int
    """Concurrent calls that it may have; 0: any number."""
    probe_mode: int
    """0: never probed, 1: while it is down, 2: always."""
    socket: str = ""
    """The listener to send from: its name, or `transport:address:port`; empty: any."""
    attrs: str = ""
    """Opaque; policies read it."""
    begins_down: bool = False
    """Whether one that was not known before is down until a probe or an operator brings it up."""


class Pool(msgspec.Struct, frozen=True):
    """`[peer.NAME.pool]`: `to` is a pool of machines of one kind, with a choice among them and with health."""

    balance: Literal["order", "weight", "call_id", "account", "fewest_calls"] = "weight"
    """`order`: the first that is usable. `weight`: at random, in the share of `weights`. `call_id`, `account`: by a hash of the Call-ID or of From's URI in the share of `weights`, so that each has its machine as long as that is usable. `fewest_calls`: the one with the fewest live calls for its weight."""
    weights: list[Annotated[int, Meta(ge=0, le=65_535)]] = field(default_factory=list)
    """Weights of the machines, in the order of `to`; empty: all alike. 0 takes calls only where no other is usable."""
    machine_calls: MachineCalls | list[MachineCalls] = 0
    """Concurrent calls that each machine may have, or a list in the order of `to`; 0: any number. One that is full is passed over as if it were down."""
    machine_calls_per_second: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """New calls that each machine may have within any second; 0: any number."""
    dispatcher: Annotated[int, Meta(ge=0)] | None = None
    """The machines are the rows of the table `dispatcher` with this `setid`, in place of `to`: highest `priority` first, with their `weight`, without those of `state` 1."""
    load_balancer: Annotated[int, Meta(ge=0)] | None = None
    """The machines are the rows of the table `load_balancer` with this `group_id`, in place of `to`, each with as many calls as `resource` says."""
    resource: str = "pstn"
    """Which of `load_balancer.resources` (`pstn=30;transc=5`) bounds the calls of a machine, and is its weight."""
    probe: bool | None = None
    """Whether the machines are probed as `[routing.probe]` says; else one that failed is tried again after `routing.health.retry_seconds`. Absent: those of `to` are, those of the database as their `probe_mode` says."""

    @property
    def is_provisioned(self) -> bool:
        """Whether its machines are in the database."""
        return self.dispatcher is not None or self.load_balancer is not None

    def machines_of(self, count: int) -> list[Machine]:
        """Return what each of `count` machines has of its own."""
        calls = self.machine_calls if isinstance(self.machine_calls, list) else [self.machine_calls] * count
        probe = NEVER_PROBED if self.probe is False else ALWAYS_PROBED
        return [Machine(weight, most, probe) for weight, most in zip(self.weights or [1] * count, calls, strict=True)]


class ProvisionedPool(Pool, frozen=True):
    """A pool whose machines were read from the database."""

    machines: tuple[Machine, ...] = ()
    """In the order of `to`."""

    def machines_of(self, count: int) -> list[Machine]:
        """Return what each of `count` machines has of its own."""
        return list(self.machines[:count])


class Peer(msgspec.Struct, frozen=True):
    """One peer."""

    kind: Literal["core", "gateway", "trusted", "subscribers"]
    """`core`: the machines behind us. `gateway`: a carrier. `trusted`: our own elements. `subscribers`: phones; theirs goes to the core only."""
    match: list[str] = field(default_factory=list)
    """How the peer is known: `address[/prefix][:port][;transport=][;listener=][;from=PATTERN]`, or `*;listener=NAME` for everyone there. The most specific rule of all peers wins. `from` is a shell pattern for the URI of From in new requests (`sip:*@carrier.example`; `*` any text, `?` any character, letters in either case, no sets) and stands last; where no request is at hand rules without one count first."""
    match_group: Annotated[int, Meta(ge=0)] | None = None
    """Rows of the table `address` with this `grp` are rules beside `match`."""
    to: list[str] = field(default_factory=list)
    """For a core, where calls for the core go; for others, where calls of this peer go. SIP URIs, tried in order. Absent: to the core that has targets, else to the Request-URI; a core's own calls always go to the Request-URI."""
    forking: Literal["serial", "parallel"] = "serial"
    """Whether `to` is tried one after the other or all at once."""
    fail_over: list[StatusCode] = field(default_factory=lambda: [500, 502, 503, 504])
    """Final responses after which the next target is tried; silence and transport errors always count."""
    first_answer_seconds: Annotated[float, Meta(gt=0, le=32)] = 4.0
    """Longest wait for any answer to one attempt at `to`."""
    final_answer_seconds: Annotated[float, Meta(ge=1, le=3_600)] = 185.0
    """Longest wait for the final answer after a provisional one, per attempt at `to` (timer C, RFC 3261 section 16.6)."""
    oversize: Literal["fragment", "tcp"] = "fragment"
    """How requests of more than 1,300 bytes reach this peer: in UDP fragments, or over TCP with UDP as fall-back, whatever transport its URI names (RFC 3261 section 18.1.1)."""
    trust_identity: bool | None = None
    """Whether P-Asserted-Identity, Diversion and their like are believed; by default of all but subscribers."""
    allow_routes: bool | None = None
    """Whether new requests may bring a Route of their own; by default of core and trusted peers only."""
    route: str = ""
    """The `[route.NAME]` that its new requests go by; it comes before `to`, unless it only checks."""
    gateway_types: list[Annotated[int, Meta(ge=-1, le=2_147_483_647)]] = field(default_factory=list)
    """Gateways of the database that are this peer, by `dr_gateways.type`; -1 for those that no other peer claims. They are known by their address and port, over TCP by their address."""
    pool: Pool | None = None
    """Makes `to` a pool: see below. A pool is tried one machine after the other."""
    lookups: list[str] = field(default_factory=list)
    """`[lookup.NAME]`s that its calls wait for, one after the other, before policies are asked."""
    numbers_in: NumberUse | None = None
    """What numbers become that it sends, so that they have one form within."""
    numbers_out: NumberUse | None = None
    """What numbers become that it gets."""
    authenticate: bool | None = None
    """Whether its requests must prove whose they are, as `[authentication]` says; by default those of subscribers where a `[registrar]` keeps them. A REGISTER for a domain that is not kept here is then refused with 404; with `false` it goes to the core."""
    media: Engage | None = None
    """Whether calls from and to this peer have their media relayed, where that is to differ from `media.engage`; needs a `[media]`."""
    fraud_profile: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    """The profile that its calls are watched by where their account names none; needs a `[fraud]`. 0: the default one."""
    listener: str = ""
    """Listener to send from; by default the one that the kernel's routes suggest."""

    @property
    def has_targets(self) -> bool:
        """Whether it names targets, here or in the database."""
        return bool(self.to or (self.pool and self.pool.is_provisioned))

    @property
    def uses_rows(self) -> bool:
        """Whether the database says who it is or where its calls go."""
        return self.match_group is not None or bool(self.pool and self.pool.is_provisioned)

    @property
    def is_trusted(self) -> bool:
        """Whether its word on identities is believed."""
        return self.kind != "subscribers" if self.trust_identity is None else self.trust_identity

    def rules(self) -> list[MatchRule]:
        """Return the parsed rules."""
        return [MatchRule.parse(text) for text in self.match]

    def check(self, path: KeyPath, faults: Faults, listeners: set[str], routes: set[str]) -> None:
        """Check what types cannot."""
        for text in self.match:
            try:
                rule = MatchRule.parse(text)
            except ValueError as error:
                faults.add((*path, "match"), f"{error}, got: {text}")
                continue
            if rule.listener and rule.listener not in listeners:
                faults.add(
                    (*path, "match"),
                    f"no such listener, got: {rule.listener}",
                    f"listeners: {', '.join(sorted(listeners))}",
                )
        for uri in self.to:
            if problem := target_problem(uri):
                faults.add((*path, "to"), problem)
        if self.listener and self.listener not in listeners:
            faults.add(
                (*path, "listener"),
                f"no such listener, got: {self.listener}",
                f"listeners: {', '.join(sorted(listeners))}",
            )
        if self.pool:
            self._check_pool(self.pool, path, faults)
        if self.route and self.route not in routes:
            faults.add((*path, "route"), f"no such route, got: {self.route}", f"routes: {', '.join(sorted(routes)) or 'none'}")
        if self.route and self.kind == "subscribers":
            faults.add(
                (*path, "route"),
                "subscribers go to the core only",
                "nobody asks them for a password here, and gateways for everyone are an open relay; give the core a route",
            )
        if self.gateway_types and self.kind == "subscribers":
            faults.add((*path, "gateway_types"), "subscribers are no gateways")
        if not (self.match or self.match_group is not None or self.has_targets or self.gateway_types):
            faults.add((*path, "match"), "a peer needs `match`, `match_group`, `to`, `gateway_types`, or several of them")

    def check_lookups(self, path: KeyPath, faults: Faults, lookups: set[str]) -> None:
        """Check which lookups it has."""
        for name in self.lookups:
            if name not in lookups:
                faults.add((*path, "lookups"), f"no such lookup, got: {name}", f"lookups: {', '.join(sorted(lookups)) or 'none'}")

    def check_numbers(self, path: KeyPath, faults: Faults, sets: frozenset[str]) -> None:
        """Check which numbers it has."""
        for key, use in (("numbers_in", self.numbers_in), ("numbers_out", self.numbers_out)):
            if use:
                use.check((*path, key), faults, sets)

    def _check_pool(self, pool: Pool, path: KeyPath, faults: Faults) -> None:
        if pool.is_provisioned and (self.to or pool.weights or isinstance(pool.machine_calls, list)):
            faults.add(
                (*path, "pool"),
                "`dispatcher` and `load_balancer` say which machines there are: expected neither `to` nor lists beside them",
            )
        if pool.dispatcher is not None and pool.load_balancer is not None:
            faults.add((*path, "pool"), "expected `dispatcher` or `load_balancer`")
        if not self.has_targets or self.forking == "parallel":
            faults.add((*path, "pool"), "a pool needs `to`, and forking in series")
        elif pool.weights and len(pool.weights) != len(self.to):
            faults.add((*path, "pool", "weights"), f"expected one for each of `to` ({len(self.to)}), got {len(pool.weights)}")
        if isinstance(pool.machine_calls, list) and len(pool.machine_calls) != len(self.to):
            faults.add((*path, "pool", "machine_calls"), f"expected one for each of `to` ({len(self.to)}), got {len(pool.machine_calls)}")
        if len(set(self.to)) != len(self.to):
            faults.add((*path, "to"), "a pool names each machine once")

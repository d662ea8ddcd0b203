"""`[flood]`: when a source is not listened to any more."""

import ipaddress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.config.registrar import check_networks, networks

Count = Annotated[int, Meta(ge=1, le=65_535)]
Points = Annotated[int, Meta(ge=0, le=65_535)]
_SCANNERS = (
    "*friendly-scanner*",
    "*friendly-request*",
    "sipvicious*",
    "sipcli*",
    "sip-scan*",
    "sundayddr*",
    "pplsip*",
    "iWar*",
    "SIVuS*",
    "Gulp*",
    "smap *",
    "VaxSIPUserAgent*",
    "CSipSimple-scan*",
)


class Kernel(msgspec.Struct, frozen=True):
    """`[flood.kernel]`: banned sources are dropped by nftables before they cost anything. The table is ours alone: made at the start, removed at the end; no other rule is looked at."""

    enabled: bool = False
    """Whether there is one; it needs the program `nft` and root or CAP_NET_ADMIN, without `install.user`."""
    table: Annotated[str, Meta(max_length=200)] = "edgeproxy"
    """Its name, in the family `inet`; of several proxies on one machine each needs one of its own."""
    udp_packets_per_minute: Annotated[int, Meta(ge=1, le=60_000_000)] = 12
    """What is let through, after the first five, of each source that was banned for datagrams, whose address anybody may have forged; what came by TCP or TLS, and operators' bans, are dropped whole."""
    max_sources: Annotated[int, Meta(ge=16, le=10_000_000)] = 65_536
    """Sources that the kernel drops at once; more are dropped by us."""
    check_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 30.0
    """How often it is seen to that the table is still there."""


class Flood(msgspec.Struct, frozen=True):
    """`[flood]`: every packet is counted by its source, and so is what a source does wrong. Peers of kind core, gateway and trusted, gateways of the database, and `authentication.attacks.exempt` never count."""

    unit_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 2
    """A unit begins with the first packet of a source."""
    packets: Annotated[int, Meta(ge=2, le=65_535)] = 1_000
    """The packet of a unit that is one too many..."""
    packets_per_user: Annotated[int, Meta(ge=0, le=1_000)] = 10
    """...after so many more for each user who registered from there in the last two hours; 65,535 at most."""
    account_requests: Count = 200
    """The request of a unit that is one too many of an account, wherever it comes from; it gets 480. Such requests are not charged to their source."""
    block_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 300
    """How long such a source is banned. Where a user came from before (`authentication.attacks.known_seconds`) only what is too much is dropped, until the unit ends."""
    score_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Points are counted in a window of so many seconds from the first one on."""
    score: Count = 100
    """Points that lead to a ban, but of a source that a user came from before."""
    malformed_points: Points = 2
    """For a message that does not parse."""
    stranger_points: Points = 2
    """For a request of nobody known."""
    failed_points: Points = 1
    """For a failed authentication; `authentication.attacks` counts those besides."""
    scanners: list[str] = field(default_factory=lambda: list(_SCANNERS))
    """User-Agents that lead to a ban at once, as shell patterns in either case; only strangers and unproved requests of subscribers are looked at."""
    exempt: list[str] = field(default_factory=list)
    """Networks that never count."""
    max_sources: Annotated[int, Meta(ge=16, le=100_000_000)] = 65_536
    """Sources that are counted at once, 40 bytes each; of more those with the fewest packets make room."""
    dry_run: bool = False
    """Whether it is only told (`E_PIKE_BLOCKED` with the state `dry-run`, the log) what would be done."""
    kernel: Kernel = field(default_factory=Kernel)
    """Drops in the kernel."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        check_networks(self.exempt, (*path, "exempt"), faults)
        for pattern in self.scanners:
            if not pattern.strip("*?") or not pattern.isprintable():
                faults.add((*path, "scanners"), f"expected a pattern that does not fit everything, got: {pattern!r}")
        if not self.kernel.table.isidentifier():
            faults.add((*path, "kernel", "table"), f"expected a name of letters, digits and _, got: {self.kernel.table}")

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        found = msgspec.to_builtins(self)
        for key in ("kernel", "exempt", "max_sources"):
            del found[key]
        return {**found, "exempt": networks(self.exempt), "sources": self.max_sources}


def family(source: str) -> int:
    """Return 4 or 6."""
    return ipaddress.ip_address(source).version

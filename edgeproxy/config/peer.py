"""`[peer.NAME]`: who may send requests, and where they go."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import MatchRule
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

_URI = re.compile(r"^sips?:(?:[^@\s<>]+@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?(?:;[^\s<>]*)?$")
StatusCode = Annotated[int, Meta(ge=300, le=599)]


class Peer(msgspec.Struct, frozen=True):
    """One peer."""

    kind: Literal["core", "gateway", "trusted", "subscribers"]
    """`core`: the machines behind us. `gateway`: a carrier. `trusted`: our own elements. `subscribers`: phones; theirs goes to the core only."""
    match: list[str] = field(default_factory=list)
    """How the peer is known: `address[/prefix][:port][;transport=][;listener=]`, or `*;listener=NAME` for everyone there. The most specific rule of all peers wins."""
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
    listener: str = ""
    """Listener to send from; by default the one that the kernel's routes suggest."""

    def rules(self) -> list[MatchRule]:
        """Return the parsed rules."""
        return [MatchRule.parse(text) for text in self.match]

    def check(self, path: KeyPath, faults: Faults, listeners: set[str]) -> None:
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
            if not _URI.match(uri):
                faults.add((*path, "to"), f"expected a SIP URI with a host, got: {uri}")
            elif uri.startswith("sips:") or re.search(r";transport=(?!udp|tcp)", uri, re.IGNORECASE):
                faults.add((*path, "to"), f"expected transport udp or tcp, got: {uri}")
        if self.listener and self.listener not in listeners:
            faults.add(
                (*path, "listener"),
                f"no such listener, got: {self.listener}",
                f"listeners: {', '.join(sorted(listeners))}",
            )
        if not self.match and not self.to:
            faults.add((*path, "match"), "a peer needs `match`, `to` or both")

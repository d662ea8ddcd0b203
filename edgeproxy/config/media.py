"""`[media]`: RTP that is relayed."""

from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import split_host_port
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Engage = Literal["auto", "always", "never"]


class Rtpengine(msgspec.Struct, frozen=True):
    """`[media.rtpengine.NAME]`: an rtpengine that relays in our place. Where there is one, no media worker relays new calls."""

    address: str
    """`address:port` where it takes commands of the ng protocol over UDP."""
    weight: Annotated[int, Meta(ge=0, le=65_535)] = 1
    """Its share of the calls among those that answer; 0 takes some only where no other can."""


class Media(msgspec.Struct, frozen=True):
    """`[media]`: which calls have their media relayed, and how. Where the table is left out, none has."""

    engage: Engage = "auto"
    """Which calls, where neither of their peers has a `media` of its own and no policy says. `auto`: where a side is behind a NAT, or the listeners of both sides face different networks or are of different address families. Of two peers that differ, `always` counts before `never`, and that before `auto`."""
    learning: Literal["never", "known", "any"] = "known"
    """Whose packets are believed before a side was heard: `never`: only those from the address and port of its SDP; `known`: from any port of that address, or of the one that its signalling comes from; `any`: anybody's, which lets strangers in who are quick, and is for phones whose media leaves their NAT by another address than their signalling. Once heard, a source is the only one."""
    relearn_after_milliseconds: Annotated[int, Meta(ge=100, le=600_000)] = 2_000
    """A source that was silent for so long may come from elsewhere, by the same rule; a new SDP may move it at once."""
    timeout_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    """A call of which neither side has sent anything for so long is told as an event, and again each time that it has passed; 0: never. It is looked for every two seconds, and in calls that were answered only."""
    hold_timeout_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3_600
    """The same while it is on hold."""
    end_calls: bool = True
    """Whether such a call is ended, with BYE to both sides."""
    streams: Annotated[int, Meta(ge=1, le=32)] = 8
    """Streams of one call; a request with more is refused with 500."""
    packets_per_second: Annotated[int, Meta(ge=100, le=1_000_000)] = 5_000
    """Datagrams that one port passes on in a second; video of high quality has some thousand. What two descriptions that lead to each other's ports would have circle stays within it."""
    rtpengine: dict[str, Rtpengine] = field(default_factory=dict)
    """Engines that relay in place of our own media workers. `learning` and timeouts are theirs then."""
    rtpengine_timeout_milliseconds: Annotated[int, Meta(ge=10, le=10_000)] = 500
    """Longest wait for an rtpengine's answer, for each try."""
    rtpengine_tries: Annotated[int, Meta(ge=1, le=10)] = 3
    """How often one is asked before it counts as down and the next one is; a call that is at one that is down goes on at another with its next offer."""
    rtpengine_ping_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 5
    """How often an rtpengine that said nothing meanwhile is asked whether it is there: so one that is down comes back."""
    rtpengine_directions: bool = False
    """Whether rtpengines are told the `network` of the listeners of both sides as `direction`; their `--interface` must have those names."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for name, engine in self.rtpengine.items():
            try:
                host, port = split_host_port(engine.address)
                ip_address(host)
            except ValueError:
                host, port = "", 0
            if not (host and port):
                faults.add((*path, "rtpengine", name, "address"), f"expected an IP address with a port, got: {engine.address}")

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "engage": self.engage,
            "learning": self.learning,
            "relearn_after_milliseconds": self.relearn_after_milliseconds,
            "timeout_seconds": self.timeout_seconds,
            "hold_timeout_seconds": self.hold_timeout_seconds,
            "end_calls": self.end_calls,
            "streams": self.streams,
            "packets_per_second": self.packets_per_second,
            "rtpengines": [{"name": name, "address": engine.address, "weight": engine.weight} for name, engine in self.rtpengine.items()],
            "engine": {
                "timeout_milliseconds": self.rtpengine_timeout_milliseconds,
                "tries": self.rtpengine_tries,
                "ping_seconds": self.rtpengine_ping_seconds,
                "directions": self.rtpengine_directions,
            },
        }

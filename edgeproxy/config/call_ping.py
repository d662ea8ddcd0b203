"""`[call_ping]`: phones that are gone without a word, found by asking within their calls."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath


class CallPing(msgspec.Struct, frozen=True):
    """`[call_ping]`: a request to each side of an answered call in the name of the other. No answer, 408 or 481 ends the call with a BYE both ways; every other answer means that the side is there."""

    interval_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 60
    """At most so long from a ping to the next; at least three quarters of it."""
    method: Literal["OPTIONS", "INVITE"] = "OPTIONS"
    """`INVITE` offers again what was agreed on, where that is known, and costs the memory of two descriptions a call; otherwise it is OPTIONS."""
    sides: list[Literal["caller", "callee"]] = field(default_factory=lambda: ["caller", "callee"])
    """Who is pinged."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.sides:
            faults.add((*path, "sides"), 'expected "caller", "callee", or both')

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "interval_seconds": self.interval_seconds,
            "reinvite": self.method == "INVITE",
            "caller": "caller" in self.sides,
            "callee": "callee" in self.sides,
        }
